"""Assignment to seeds and bipartite merging against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune import kernels
from tokenprune.kernels.assign import best_match, gather_members
from tokenprune.kernels.bipartite import bipartite_merge, merge_rounds

from ..methods.watch import Watch

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block_bytes", [1, 4 * 2 * 5 * 3, 2**20])
def test_the_best_match_is_of_its_own_sort_if_it_can_be(block_bytes):
    a, b = kernels.unit(draw(2, 7, 4)), kernels.unit(draw(2, 5, 4, seed=1))
    sorts = torch.tensor([[0, 1, 0, 0, 2, 1, 0]] * 2), torch.tensor([[0, 0, 1, 0, 1], [1, 1, 1, 1, 1]])
    plain, sorted_ = best_match(a, b, None, block_bytes), best_match(a, b, sorts, block_bytes)
    for s in range(2):
        for i in range(7):
            cosines = [float(a[s, i] @ b[s, j]) for j in range(5)]
            assert int(plain[1][s, i]) == cosines.index(max(cosines))
            assert float(plain[0][s, i]) == pytest.approx(max(cosines), abs=1e-6)
            own = [j for j in range(5) if sorts[1][s, j] == sorts[0][s, i]] or range(5)
            assert int(sorted_[1][s, i]) == max(own, key=lambda j: cosines[j])


def test_ties_of_matches_go_to_the_lower_index():
    a, b = kernels.unit(torch.ones(1, 3, 2)), kernels.unit(torch.ones(1, 4, 2))
    assert best_match(a, b)[1].tolist() == [[0, 0, 0]]


@quick
@given(st.integers(1, 12), st.data())
def test_members_are_gathered_with_their_weights(n, data):
    k, seed = data.draw(st.integers(1, n)), data.draw(st.integers(0, 10**6))
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(2, n, 3, generator=g)
    slot = torch.stack([torch.randperm(n, generator=g)[:k] for _ in range(2)])
    label = torch.randint(k, (2, n), generator=g)
    weight = torch.rand(2, n, generator=g) * (torch.rand(2, n, generator=g) < 0.6)
    own = torch.rand(2, k, generator=g)
    got = gather_members(values, slot, label, weight, own)
    half = gather_members(values, slot, label, weight)
    for s in range(2):
        for c in range(k):
            members = [i for i in range(n) if label[s, i] == c and weight[s, i] > 0]
            seed_value = values[s, slot[s, c]]
            if not members:
                assert torch.equal(got[s, c], seed_value)
                continue
            mean = sum(weight[s, i] * values[s, i] for i in members) / sum(weight[s, i] for i in members)
            torch.testing.assert_close(got[s, c], own[s, c] * seed_value + (1 - own[s, c]) * mean)
            torch.testing.assert_close(half[s, c], (seed_value + mean) / 2)
    assert gather_members(values.half(), slot, label, weight).dtype == torch.float16


@given(st.integers(1, 400), st.data(), st.sampled_from([0.01, 0.1, 0.33, 0.5]))
@quick
def test_rounds_end_exactly_at_keep(n, data, share):
    keep, left = data.draw(st.integers(1, n)), n
    for r in merge_rounds(n, keep, share):
        assert 1 <= r <= max(1, math.floor(share * left)) and 2 * r <= left
        left -= r
    assert left == keep


def test_as_few_rounds_as_can_be():
    assert merge_rounds(576, 64) == (288, 144, 72, 8)
    assert merge_rounds(7, 1) == (3, 2, 1)
    assert merge_rounds(5, 5) == ()


def merged(x: torch.Tensor, keep: int, share: float = 0.5, sort=None) -> tuple[dict[int, list[int]], float]:
    """(N, C) -> {slot: members} of one image, round by round over lists, and how close the closest call was."""
    groups = [(i, [i]) for i in range(len(x))]  # (slot, members), in raster order
    rows, close = x.double(), math.inf
    while len(groups) > keep:
        n = len(groups)
        r = min(max(1, math.floor(share * n)), n // 2, n - keep)
        mean = [rows[members].mean(0) for _, members in groups]
        links = []
        for a in range(0, n, 2):
            score = {}
            for b in range(1, n, 2):
                score[b] = float(torch.nn.functional.cosine_similarity(mean[a], mean[b], dim=0))
                if sort is not None and sort[groups[a][0]] != sort[groups[b][0]]:
                    score[b] -= 10
            ranked = sorted(score, key=lambda b: (-score[b], b))
            if len(ranked) > 1:
                close = min(close, score[ranked[0]] - score[ranked[1]])
            links.append((score[ranked[0]], a, ranked[0]))
        links.sort(key=lambda link: (-link[0], link[1]))
        if r < len(links):
            close = min(close, links[r - 1][0] - links[r][0])
        for _, a, b in links[:r]:
            groups[b][1].extend(groups[a][1])
        gone = {a for _, a, _ in links[:r]}
        groups = [group for i, group in enumerate(groups) if i not in gone]
    return dict(groups), close


@quick
@given(
    st.integers(1, 17),
    st.data(),
    st.sampled_from([0.1, 0.3, 0.5]),
    st.booleans(),
    st.sampled_from([1, 2**20]),
)
def test_merging_equals_lists_of_members(n, data, share, sorts, block_bytes):
    keep, seed = data.draw(st.integers(1, n)), data.draw(st.integers(0, 10**6))
    x = draw(2, n, 5, seed=seed)
    sort = (torch.arange(n) % 4 == 3).expand(2, -1) if sorts else None
    slot, label = bipartite_merge(x, keep, share, sort, block_bytes)
    for s in range(2):
        groups, close = merged(x[s], keep, share, None if sort is None else sort[s].tolist())
        assume(close > 1e-5)
        assert slot[s].tolist() == sorted(groups)
        for c, place in enumerate(slot[s].tolist()):
            assert [i for i in range(n) if label[s, i] == c] == sorted(groups[place])


def test_copies_merge_before_anything_else():
    """Thirty directions twice, side by side: exactly the pairs merge."""
    x = draw(1, 30, 16).repeat_interleave(2, 1) * torch.linspace(0.5, 2, 60)[None, :, None]
    slot, label = bipartite_merge(x, 30)
    assert slot.tolist() == [list(range(1, 60, 2))]
    assert label.tolist() == [[i // 2 for i in range(60)]]


def test_similarities_of_many_tokens_stay_in_blocks():
    x = draw(2, 900, 8)
    with Watch() as watch:
        slot, label = bipartite_merge(x, 90, block_bytes=2**19)
    assert watch.largest <= 2**19 < 2 * 4 * 450 * 450 and watch.waits == []
    assert slot.shape == (2, 90) and sorted(set(label[1].tolist())) == list(range(90))
