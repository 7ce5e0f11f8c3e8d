"""VidCom2 against one clip at a time in float64 and plain Python."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune.budget import share_out
from tokenprune.errors import TokenPruneError
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, clip, make_tokens, take
from .toy import toy

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows)]


def gaussian(a: list[float], b: list[float]) -> float:
    far = sum((u - v) ** 2 for u, v in zip(a, b))
    return sum(math.exp(-far / (2 * 2.0**e)) for e in range(-3, 2))


def reference(x: torch.Tensor, frame: list[int], separators: set[int], keep: int, tau: float = 0.01):
    """(N, D) -> kept indices, budgets, closest call; at least one token a frame wherever that is possible."""
    rows = x.double().tolist()
    patches = [i for i in range(len(rows)) if i not in separators]
    middle = mean([rows[i] for i in patches])
    spread = [sum((rows[i][d] - middle[d]) ** 2 for i in patches) for d in range(len(middle))]
    channels = sorted(range(len(spread)), key=lambda d: (spread[d], d))
    half = max(1, len(spread) // 2)
    close = spread[channels[half]] / spread[channels[half - 1]] - 1 if half < len(channels) else 1.0
    y = [[r[d] for d in sorted(channels[:half])] for r in rows]
    y = [[v / math.sqrt(sum(u * u for u in r)) for v in r] for r in y]
    clip_centre = mean([y[i] for i in patches])
    count = max(frame) + 1
    own = [[i for i in range(len(rows)) if frame[i] == t] for t in range(count)]
    centre = [mean([y[i] for i in ids if i not in separators]) for ids in own]
    to_clip = [gaussian(r, clip_centre) for r in y]
    score = [to_clip[i] + gaussian(y[i], centre[frame[i]]) for i in range(len(rows))]
    u = [-sum(to_clip[i] for i in ids if i not in separators) / len(set(ids) - separators) for ids in own]
    p = [math.exp((v - max(u)) / tau) for v in u]
    p = [v / sum(p) for v in p]
    due = [keep / len(rows) * (1 + v - 1 / count) * len(ids) for v, ids in zip(p, own)]
    least = int(keep >= count)
    budget = share_out([max(d - least, 0) for d in due], keep, [len(ids) for ids in own], least)
    kept = []
    for ids, k in zip(own, budget):
        order = sorted(ids, key=lambda i: (score[i], i))
        kept += order[:k]
        if 0 < k < len(order):
            close = min(close, score[order[k]] - score[order[k - 1]])
    part = sorted(d % 1 for d in due)  # budgets hang on the order of these
    close = min([close, *(abs(a - b) + 1e9 * (count == 1) for a, b in itertools.pairwise(part))])
    return sorted(kept), budget, close


@quick
@given(st.sampled_from(["video", "video-newline", "square", "newlines"]), st.integers(0, 10**6), st.data())
def test_agrees_with_a_float64_loop(layout, seed, data):
    tokens = make_tokens(LAYOUTS[layout], images=2, seed=seed)
    coords, n = tokens.coords.tolist(), tokens.shape[1]
    separators = {i for i, c in enumerate(coords) if c[2] < 0}
    frame = [max(c[1] for c in coords[: i + 1]) for i in range(n)]
    keep = data.draw(st.integers(1, n))
    mask = get_method("vidcom2").select(tokens, keep).keep
    for i in range(2):
        kept, _, close = reference(tokens.features[i], frame, separators, keep)
        assume(close > 1e-5)
        assert mask[i].nonzero().flatten().tolist() == kept


def cut_video(frames: int = 8, at: int = 6, places: int = 25, seed: int = 0) -> VisualTokens:
    """One still picture, and another from frame `at` on."""
    g = torch.Generator().manual_seed(seed)
    pictures = torch.randn(2, places, 32, generator=g)
    x = torch.stack([pictures[int(t >= at)] for t in range(frames)])
    x = x + 0.05 * torch.randn(x.shape, generator=g)
    layout = clip(frames, 5, places // 5)
    return VisualTokens(x.view(1, -1, 32), layout.grid, "video", layout.coords)


def test_budgets_are_nearly_even_whatever_the_clip():
    """The trap: at most twice the mean for one frame, at most a share 1/T less for the others."""
    tokens = cut_video()
    for keep in (40, 80, 120):
        counts = get_method("vidcom2").select(tokens, keep).keep.view(8, 25).sum(1).tolist()
        even = keep / 8
        assert sum(counts) == keep
        assert max(counts) <= 2 * even + 1 and min(counts) >= even * (1 - 1 / 8) - 1
    flat = get_method("vidcom2", tau=100.0).select(tokens, 80).keep.view(8, 25).sum(1)
    assert flat.tolist() == [10] * 8


def test_copies_of_an_odd_token_all_stay():
    g = torch.Generator().manual_seed(3)
    x = torch.randn(1, 16) + 0.3 * torch.randn(36, 16, generator=g)
    x[[4, 11, 30]] = -x.mean(0)
    kept = get_method("vidcom2").select(VisualTokens(x[None], (1, 6, 6)), 3).keep[0]
    assert kept.nonzero().flatten().tolist() == [4, 11, 30]


def test_every_frame_keeps_one_from_t_tokens_on():
    for keep in (4, 5, 9):
        counts = get_method("vidcom2").select(toy(), keep).keep.view(4, 6).sum(1)
        assert counts.min() >= 1 and counts.sum() == keep
    assert get_method("vidcom2").select(toy(), 3).keep.sum() == 3


def test_a_clip_that_was_cut_before_keeps_its_frames():
    tokens = make_tokens(LAYOUTS["video"], images=2)
    left = [i for i in range(60) if i % 3 == 0 and not 24 <= i < 36]  # the third frame is gone
    some = take(tokens, [0, 1])
    some.features, some.coords, some.grid = tokens.features[:, left], tokens.coords[left], None
    counts = get_method("vidcom2").select(some, 8).keep.view(2, 4, 4).sum(2)
    assert counts.sum(1).tolist() == [8, 8] and counts.min() >= 1


@pytest.mark.parametrize("hyper", [{"tau": 0.0}, {"tau": True}, {"channels": 0.0}, {"channels": 1.1}])
def test_what_is_refused(hyper):
    with pytest.raises(TokenPruneError, match=next(iter(hyper))):
        get_method("vidcom2", **hyper)
