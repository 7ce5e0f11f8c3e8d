"""V-CAST against one clip at a time in float64 and plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune.budget import share_out
from tokenprune.errors import TokenPruneError
from tokenprune.methods import get_method
from tokenprune.methods.vcast import curvature
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, clip, make_tokens

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def cos(a: list[float], b: list[float]) -> float:
    size = math.sqrt(sum(v * v for v in a) * sum(v * v for v in b))
    return sum(u * v for u, v in zip(a, b)) / size if size else 0.0


def reference(x: torch.Tensor, frame: list[int], separators: set[int], keep: int):
    """(N, D) -> kept indices and the closest call."""
    rows, count = x.double().tolist(), max(frame) + 1
    own = [[i for i in range(len(rows)) if frame[i] == t] for t in range(count)]
    f = []
    for ids in own:
        m = [sum(v) / len(v) for v in zip(*(rows[i] for i in ids if i not in separators))]
        f.append([v / math.sqrt(sum(u * u for u in m)) for v in m])
    kappa = [1.0] * count
    for t in range(1, count - 1):
        before = [a - b for a, b in zip(f[t], f[t - 1])]
        after = [a - b for a, b in zip(f[t + 1], f[t])]
        kappa[t] = 1 - cos(before, after)
    w = [math.exp(k / 0.7) for k in kappa]
    budget = share_out(w, keep, [len(ids) for ids in own], 1 if keep >= count else 0)
    kept, close = [], 1.0
    for t, ids in enumerate(own):
        size = {i: math.sqrt(sum(v * v for v in rows[i])) for i in ids}
        low = min(size[i] for i in ids if i not in separators)
        high = max(size[i] for i in ids if i not in separators)
        score = {
            i: 1 - cos(rows[i], f[t]) + min(max((size[i] - low) / (high - low + 1e-6), 0), 1) for i in ids
        }
        order = sorted(ids, key=lambda i: (-score[i], i))
        kept += order[: budget[t]]
        if 0 < budget[t] < len(order):
            close = min(close, score[order[budget[t] - 1]] - score[order[budget[t]]])
    return sorted(kept), close


@quick
@given(st.sampled_from(["video", "video-newline", "square", "newlines"]), st.integers(0, 10**6), st.data())
def test_agrees_with_a_float64_loop(layout, seed, data):
    tokens = make_tokens(LAYOUTS[layout], images=2, seed=seed)
    coords, n = tokens.coords.tolist(), tokens.shape[1]
    separators = {i for i, c in enumerate(coords) if c[2] < 0}
    frame = [max(c[1] for c in coords[: i + 1]) for i in range(n)]
    keep = data.draw(st.integers(1, n))
    mask = get_method("vcast").select(tokens, keep).keep
    for i in range(2):
        kept, close = reference(tokens.features[i], frame, separators, keep)
        assume(close > 1e-5)
        assert mask[i].nonzero().flatten().tolist() == kept


def path(points: list[list[float]]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor([points]), dim=-1)


def test_curvature_of_known_paths():
    still = curvature(path([[1.0, 0.0]] * 5))
    assert still.tolist() == [[1.0] * 5], "no step is a right angle"
    there_and_back = curvature(path([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]]))
    torch.testing.assert_close(there_and_back, torch.tensor([[1.0, 2.0, 1.0]]))
    turn = [[math.cos(a), math.sin(a)] for a in (0.0, 0.1, 0.2, 0.3)]
    torch.testing.assert_close(
        curvature(path(turn)), torch.tensor([[1.0, 1 - math.cos(0.1), 1 - math.cos(0.1), 1.0]])
    )
    assert curvature(path(turn[:1])).tolist() == [[1.0]] and curvature(path(turn[:2])).tolist() == [
        [1.0, 1.0]
    ]


def test_a_pan_gets_less_than_the_frame_that_turns():
    """The trap: only the corner of the path is seen, not the motion."""
    angle = [0.0, 0.05, 0.1, 0.15, 0.2, 0.15, 0.1, 0.05]
    x = torch.tensor([[math.cos(a), math.sin(a), 0.0, 0.0] for a in angle])[:, None].expand(8, 25, 4)
    layout = clip(8, 5, 5)
    tokens = VisualTokens(x.reshape(1, 200, 4), layout.grid, "video", layout.coords)
    counts = get_method("vcast").select(tokens, 60).keep.view(8, 25).sum(1).tolist()
    ends = [counts[0], counts[7]]
    assert max(counts) == counts[4] and min(ends) > max(counts[1:4] + counts[5:7])
    assert counts[4] <= math.exp(2 / 0.7) * min(counts) + 1


def test_the_floor_holds_and_gives_way_below_it():
    tokens = make_tokens(LAYOUTS["video"])
    counts = get_method("vcast", min_k=4, tau=0.01).select(tokens, 25).keep.view(5, 12).sum(1)
    assert counts.min() == 4 and counts.sum() == 25
    assert get_method("vcast", min_k=4).select(tokens, 19).keep.sum() == 19
    assert get_method("vcast", min_k=0, tau=1e-4).select(tokens, 9).keep.sum() == 9


@pytest.mark.parametrize("hyper", [{"tau": 0}, {"tau": True}, {"min_k": -1}, {"min_k": 1.0}, {"min_k": True}])
def test_what_is_refused(hyper):
    with pytest.raises(TokenPruneError, match=next(iter(hyper))):
        get_method("vcast", **hyper)
