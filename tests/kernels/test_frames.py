"""Frames, places, change, ranks and cubes of clips, each against loops over tokens."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.methods.make import Layout, clip
from tokenprune import budget
from tokenprune.kernels.cubes import farthest_ranks, most_turns, own_cosine, peaks
from tokenprune.kernels.frames import frame_numbers, latest_at
from tokenprune.kernels.motion import NONE, change, momentum
from tokenprune.kernels.ranks import chosen_first, evenly, group_rank, in_turns
from tokenprune.kernels.similarity import unit

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def clips(draw) -> torch.Tensor:
    """(N, 4) of a clip, whole or after an earlier cut, with separators or without."""
    t, h, w = draw(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 4)))
    coords = clip(t, h, w, draw(st.sampled_from(["", "end", "row"]))).coords
    if draw(st.booleans()):
        left = [i for i in range(len(coords)) if draw(st.integers(0, 2))] or [0]
        coords = coords[left]
    return coords


def earlier(coords: list[list[int]], i: int, t: int) -> int:
    """The last token at the place of i not after frame t."""
    part, _, y, x = coords[i]
    there = [j for j, (p, u, v, w) in enumerate(coords) if (p, v, w) == (part, y, x) and u <= t and v >= 0]
    return max(there, key=lambda j: coords[j][1], default=-1)


@quick
@given(coords=clips(), back=st.integers(0, 3))
def test_the_same_place_of_an_earlier_frame(coords, back):
    rows = coords.tolist()
    wanted = [earlier(rows, i, rows[i][1] - back) if rows[i][2] >= 0 else -1 for i in range(len(rows))]
    assert latest_at(coords, coords[:, 1] - back).tolist() == wanted


def test_parts_do_not_see_each_other():
    crops = Layout(((0, 0, 2, 2), (1, 0, 2, 2))).coords
    assert latest_at(crops, crops[:, 1] - 1).tolist() == [-1] * 8
    assert latest_at(crops, crops[:, 1]).tolist() == list(range(8))
    assert frame_numbers(crops).tolist() == [0] * 4 + [1] * 4


@quick
@given(coords=clips())
def test_frames_are_numbered_without_gaps(coords):
    wanted, last, number = [], None, -1
    for part, t, y, _ in coords.tolist():
        here = (part, t) if y >= 0 else last  # a separator in front is a frame of its own
        number += number < 0 or here != last
        last = here
        wanted.append(number)
    assert frame_numbers(coords).tolist() == wanted


@quick
@given(coords=clips(), seed=st.integers(0, 99), blocks=st.sampled_from([1, 300, 2**26]))
def test_change_is_one_minus_the_cosine(coords, seed, blocks):
    n = len(coords)
    x = torch.randn(2, n, 5, generator=torch.Generator().manual_seed(seed))
    other = latest_at(coords, coords[:, 1] - 1)
    got = change(x, other, blocks)
    for s in range(2):
        for i, j in enumerate(other.tolist()):
            wanted = (
                NONE if j < 0 else 1 - float(torch.cosine_similarity(x[s, i].double(), x[s, j].double(), 0))
            )
            assert float(got[s, i]) == pytest.approx(wanted, abs=1e-6)


def test_copies_do_not_change_at_all():
    x = torch.randn(1, 50, 7).repeat(1, 2, 1)
    other = torch.cat([torch.full((50,), -1), torch.arange(50)])
    assert (change(x, other)[:, 50:] == 0).all()


@settings(quick, max_examples=12)
@given(
    coords=clips(), seed=st.integers(0, 99), alpha=st.sampled_from([0.8, 0.01, 0.3, 1.0]),
    blocks=st.sampled_from([2**26, 300]),
)  # fmt: skip
def test_momentum_is_the_recurrence(coords, seed, alpha, blocks):
    n = len(coords)
    x = torch.randn(2, n, 5, generator=torch.Generator().manual_seed(seed)).double()
    before = latest_at(coords, coords[:, 1] - 1)
    m = torch.zeros_like(x)
    for i in sorted(range(n), key=lambda i: int(coords[i, 1])):
        j = int(before[i])
        if j >= 0:
            step = x[:, i] - x[:, j]
            m[:, i] = step if int(before[j]) < 0 else alpha * step + (1 - alpha) * m[:, j]
    torch.testing.assert_close(
        momentum(x.float(), before, alpha, blocks).double(), m.norm(dim=2), rtol=1e-5, atol=1e-5
    )


def test_evenly_is_the_floor_of_linspace():
    for size in range(1, 25):
        for count in range(size + 3):
            got = evenly(torch.arange(size), torch.tensor(size), count).nonzero().flatten().tolist()
            if count >= size:
                assert got == list(range(size))
            elif count == 1:
                assert got == [(size - 1) // 2]
            else:
                assert got == [i * (size - 1) // (count - 1) for i in range(count)]


@quick
@given(data=st.data())
def test_groups_take_turns_as_equal_shares_do(data):
    n, groups = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 5))
    group = [data.draw(st.integers(0, min(groups, n) - 1)) for _ in range(n)]
    value = [data.draw(st.integers(0, 3)) for _ in range(n)]
    keep = data.draw(st.integers(1, n))
    g, v = torch.tensor([group, group[::-1]]), torch.tensor([value, value[::-1]])
    rank = group_rank(v, g)
    for row, of, values in zip(rank.tolist(), g.tolist(), v.tolist()):
        for c in set(of):
            members = sorted((i for i in range(n) if of[i] == c), key=lambda i: (-values[i], i))
            assert [row[i] for i in members] == list(range(len(members)))
    chosen = in_turns(rank, g, keep)
    sizes = [group.count(c) for c in range(groups)]
    shares = budget.share_out([1.0] * groups, keep, sizes)
    for row, of in zip(chosen.tolist(), g.tolist()):
        assert len(set(row)) == keep
        assert [sum(of[i] == c for i in row) for c in range(groups)] == shares


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("cuts", [0, 1, 2, 3])
def test_the_largest_share_of_a_cube_over_all_ways_to_cut(radius, cuts):
    frames, size = 11, 3
    ways = [
        (0, *c, frames)
        for c in itertools.combinations(range(1, frames), cuts)
        if all(b - a > radius for a, b in itertools.pairwise(c))
    ]
    for keep in range(1, frames * size + 1):
        shares = [
            budget.share_out([1.0] * (cuts + 1), keep, [size * (b - a) for a, b in itertools.pairwise(way)])
            for way in ways
        ]
        largest = most_turns(keep, cuts + 1, size, radius)
        assert 0 <= largest - max(max(s) for s in shares) <= 1  # the rest of a division goes to the first


def test_what_was_chosen_comes_before_higher_scores():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.5]])
    priority = chosen_first(scores, torch.tensor([[True, False, False, True]]))
    assert priority.argsort(dim=1, descending=True).tolist() == [[3, 0, 1, 2]]


@quick
@given(data=st.data())
def test_peaks_are_greedy_suppression(data):
    frames = data.draw(st.integers(1, 20))
    score = [data.draw(st.integers(0, 6)) / 2 for _ in range(frames + 3)]
    count, radius = data.draw(st.integers(0, 8)), data.draw(st.integers(1, 3))
    wanted: list[int] = []
    for f in sorted(range(1, frames), key=lambda f: (-score[f], f)):
        if len(wanted) < count and all(abs(f - g) > radius for g in wanted):
            wanted.append(f)
    got = peaks(torch.tensor([score]), torch.tensor(frames), torch.tensor(count), count + 2, radius)
    assert got[0].nonzero().flatten().tolist() == sorted(wanted)


@pytest.mark.parametrize("seed", range(4))
def test_farthest_first_in_every_group(seed):
    draw = random.Random(seed)
    n, groups, steps = 40, 4, 14  # some group is used up
    group = torch.tensor([[draw.randrange(groups - 1) for _ in range(n)] for _ in range(2)])
    x = unit(torch.randn(2, n, 6, generator=torch.Generator().manual_seed(seed)))
    got = farthest_ranks(x, group, groups, steps)
    for s in range(2):
        wanted = [steps] * n
        for c in range(groups):
            members = [i for i in range(n) if group[s, i] == c]
            if not members:
                continue
            centre = x[s, members].double().mean(0)
            chosen = [max(members, key=lambda i: float(x[s, i].double() @ centre))]
            while len(chosen) < min(steps, len(members)):
                rest = [i for i in members if i not in chosen]
                far = {i: min(1 - float(x[s, i].double() @ x[s, j].double()) for j in chosen) for i in rest}
                chosen.append(max(rest, key=lambda i: far[i]))
            for turn, i in enumerate(chosen):
                wanted[i] = turn
        assert got[s].tolist() == wanted
    assert torch.equal(farthest_ranks(x, group, groups, steps, block_bytes=1), got), "nothing is held"


def test_own_cosine_in_blocks():
    x, centre = unit(torch.randn(2, 17, 4)), unit(torch.randn(2, 3, 4))
    group = torch.randint(3, (2, 17))
    wanted = torch.stack([(x[s] * centre[s, group[s]]).sum(1) for s in range(2)])
    for size in (1, 100, 2**26):
        torch.testing.assert_close(own_cosine(x, centre, group, size), wanted)
