"""FastVID against one clip at a time in float64 and plain Python."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune.errors import TokenPruneError
from tokenprune.kernels.framing import frames_of
from tokenprune.methods import get_method
from tokenprune.methods.fastvid import dyseg, spacing
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, clip, make_tokens, take
from .toy import toy

quick = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def means_of(tokens: VisualTokens) -> torch.Tensor:
    sheet = frames_of(tokens).sheet()
    return sheet.means(sheet.lay(tokens.features))


@pytest.mark.parametrize(("count", "tau", "segments"), [
    (2, 0.9, [0, 1, 2, 3]), (2, 0.5, [0, 0, 0, 1]), (1, 0.5, [0, 0, 0, 0]), (3, 0.5, [0, 1, 1, 2]),
    (8, -1.0, [0, 1, 2, 3]), (1, 0.6, [0, 1, 1, 2]),
])  # fmt: skip
def test_segments_of_the_toy_clip(count, tau, segments):
    means = means_of(toy())
    adjacent = torch.cosine_similarity(means[0, 1:], means[0, :-1], dim=1)
    torch.testing.assert_close(adjacent, torch.tensor([0.5965, 0.6907, 0.5810]), atol=5e-5, rtol=0)
    assert dyseg(means, count, tau).tolist() == [segments]


def test_anchor_frames_are_counted_from_the_end():
    segment = torch.tensor([[0] * 9 + [1, 2, 2], [0] * 12])
    expected = torch.tensor([[3, 0, 0, 0, 3, 0, 0, 0, 3, 1, 0, 2], [0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4.0]])
    got = spacing(segment, 4)
    assert torch.equal(got == 1e-6, expected == 0)
    torch.testing.assert_close(got[expected > 0], expected[expected > 0])


def peaks(x: torch.Tensor, members: list[int], near: int) -> tuple[list[int], float]:
    """Members by falling density-peak score, and the closest of the comparisons."""
    d = {
        i: {j: math.dist(x[i].tolist(), x[j].tolist()) / math.sqrt(x.shape[1]) for j in members}
        for i in members
    }
    log_rho = {
        i: -sum(v * v for v in sorted(d[i].values())[:near]) / min(near, len(members)) for i in members
    }
    score = {}
    for i in members:
        denser = [d[i][j] for j in members if (log_rho[j], -j) > (log_rho[i], -i)]
        score[i] = log_rho[i] + math.log(max(min(denser), 1e-12)) if denser else math.inf
    values = [*log_rho.values()], [v for v in score.values() if v < math.inf]
    close = min((abs(a - b) for v in values for k, a in enumerate(v) for b in v[:k]), default=1.0)
    return sorted(members, key=lambda i: (-score[i], i)), close


def in_turn(total: int, weights: list[Fraction], room: list[int]) -> list[int]:
    """Highest averages after Webster: one after the other to the least (s + 1/2) / weight of those with room."""
    out = [0] * len(weights)
    for _ in range(total):
        open_ = [t for t in range(len(out)) if out[t] < room[t]]
        out[
            min(open_, key=lambda t: (not weights[t], Fraction(2 * out[t] + 1, 2) / (weights[t] or 1), t))
        ] += 1
    return out


def reference(tokens: VisualTokens, i: int, keep: int, segment: list[int], frames: int):
    """(kept, {slot: vector}, owner, closest call) of clip i."""
    x, saliency = tokens.features[i].double(), tokens.saliency[i].double().tolist()
    places, count = x.shape[0] // frames, len(set(segment))
    own = [range(t * places, (t + 1) * places) for t in range(frames)]
    merged = math.floor(0.4 * keep + 1e-9)
    quota, salient, close = in_turn(keep - merged, [Fraction(1)] * frames, [places] * frames), [], 1.0
    for t in range(frames):
        order = sorted(own[t], key=lambda j: (-saliency[j], j))
        salient += order[: quota[t]]
        if 0 < quota[t] < places:
            close = min(close, saliency[order[quota[t] - 1]] - saliency[order[quota[t]]])
    weights = [Fraction(0)] * frames
    for s in range(count):
        inside = [t for t in range(frames) if segment[t] == s]
        ends = inside[::-1][::4]
        for t in ends:
            weights[t] = Fraction(len(inside), len(ends))
    share = in_turn(merged, weights, [places - q for q in quota])
    anchors = []
    for t in range(frames):
        order, gap = peaks(x, [j for j in own[t] if j not in salient], 4)
        anchors += order[: share[t]]
        close = min(close, gap) if share[t] else close
    owner = []
    for j in range(len(x)):
        near = {a: float(torch.cosine_similarity(x[j], x[a], dim=0)) for a in sorted(anchors)
                if segment[a // places] == segment[j // places]}  # fmt: skip
        if j in salient or j in anchors:
            owner.append(j)
            continue
        owner.append(max(near, key=lambda a: (near[a], -a)) if near else -1)
        best = sorted(near.values())[-2:]
        close = min(close, best[1] - best[0]) if len(best) == 2 else close
    out = {}
    for j in salient + anchors:
        others = [m for m in range(len(x)) if owner[m] == j and m != j]
        w = max(1 / (len(others) + 1), 0.6)
        out[j] = w * x[j] + (1 - w) * x[others].mean(0) if others else x[j]
    return sorted(salient + anchors), out, owner, close


@quick
@given(st.integers(0, 10**6), st.data(), st.sampled_from([(1, -1.0), (2, -1.0), (3, 0.1)]))
def test_agrees_with_a_float64_loop(seed, data, how):
    layout = clip(5, 2, 4)
    tokens = make_tokens(layout, images=2, seed=seed)
    keep = data.draw(st.integers(1, 39))
    method = get_method("fastvid", segments=how[0], tau=how[1])
    selection = method.select(tokens, keep)
    segment = dyseg(means_of(tokens), *how)
    for i in range(2):
        expected = reference(tokens, i, keep, segment[i].tolist(), 5)
        assume(expected[3] > 1e-5)
        kept, vectors, owner, _ = expected
        assert selection.keep[i].nonzero().flatten().tolist() == kept
        assert selection.owner[i].tolist() == owner
        for j in kept:
            torch.testing.assert_close(selection.features[i, j].double(), vectors[j], rtol=1e-4, atol=1e-5)


def test_two_clips_of_a_group_have_their_own_segments():
    """One still clip, one that cuts: nothing of the second goes across its cut."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, 12, 16, generator=g)
    x = torch.stack([a.expand(6, -1, -1), torch.cat([a.expand(3, -1, -1), b.expand(3, -1, -1)])])
    x = x + 0.01 * torch.randn(x.shape, generator=g)
    layout = clip(6, 3, 4)
    tokens = VisualTokens(
        x.flatten(1, 2), layout.grid, "video", layout.coords, saliency=torch.rand(2, 72, generator=g),
        question=["", ""],
    )  # fmt: skip
    method = get_method("fastvid", segments=1)
    assert dyseg(x.mean(2), 1, 0.9).tolist() == [[0] * 6, [0] * 3 + [1] * 3]
    selection = method.select(tokens, 20)
    owner = selection.owner[1]
    frame = torch.arange(72) // 12
    assert (owner >= 0).all() and torch.equal(frame[owner] < 3, frame < 3)
    assert (frame[selection.owner[0]] != frame).any()
    for i in range(2):
        alone = method.select(take(tokens, [i]), 20)
        assert torch.equal(alone.keep[0], selection.keep[i]) and torch.equal(
            alone.owner[0], selection.owner[i]
        )


def test_many_segments_are_forced_on_a_still_clip():
    """The trap: the least cosines are cut at even when all are 1."""
    still = torch.randn(1, 1, 8).expand(1, 12, 8)
    assert dyseg(still, 8, 0.9)[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7]
    assert dyseg(still, 1, 0.9)[0].tolist() == [0] * 12


def test_what_a_segment_without_an_anchor_loses_is_said():
    tokens = make_tokens(LAYOUTS["video"])
    selection = get_method("fastvid", tau=1.0).select(tokens, 5)  # five segments and two anchors
    frame = torch.arange(60) // 12
    anchored = {int(frame[j]) for j in range(60) if (selection.owner[0] == j).sum() > 1}
    assert len(anchored) == 2
    lost = selection.owner[0] == -1
    assert all(
        bool(lost[j]) == (int(frame[j]) not in anchored) for j in range(60) if not selection.keep[0, j]
    )


def test_beta_is_the_least_weight_of_an_anchor():
    tokens = make_tokens(LAYOUTS["square"])
    for beta, w in ((0.6, 0.6), (0.0, None), (1.0, 1.0)):
        selection = get_method("fastvid", beta=beta, context=1.0).select(tokens, 6)
        for j in selection.keep[0].nonzero().flatten().tolist():
            others = [m for m in range(36) if selection.owner[0, m] == j and m != j]
            own = 1 / (len(others) + 1) if w is None else w
            x = tokens.features[0]
            expected = own * x[j] + (1 - own) * x[others].mean(0) if others else x[j]
            torch.testing.assert_close(selection.features[0, j], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "hyper",
    [{"segments": 0}, {"tau": 1.5}, {"context": -0.1}, {"stride": 0}, {"neighbours": 2.0}, {"beta": True}],
)
def test_what_is_refused(hyper):
    with pytest.raises(TokenPruneError, match=next(iter(hyper))):
        get_method("fastvid", **hyper)
    tokens = make_tokens(LAYOUTS["video"])
    tokens.saliency = None
    with pytest.raises(TokenPruneError, match="attention"):
        get_method("fastvid").select(tokens, 5)
