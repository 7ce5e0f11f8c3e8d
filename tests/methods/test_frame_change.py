"""evs, dtd and dycoke: the published vectors, plain loops, floors, and what they do where there is no clip."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenprune.errors import BudgetError, TokenPruneError
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, clip, make_tokens

quick = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def toy(t_: int = 4, n_: int = 6, d_: int = 4) -> VisualTokens:
    """Two of six places move, and in the last frame one more."""
    x = torch.zeros(t_, n_, d_)
    for t in range(t_):
        for n in range(n_):
            for d in range(d_):
                moving = 1.2 * t * math.sin(0.9 * t + 0.5 * n + 1.1 * d) if n in (2, 3) else 0.0
                x[t, n, d] = math.cos(0.7 * n + 1.3 * d + 0.4 * n * d) + moving
    if t_ == 4:
        x[3, 5] = torch.tensor([2.0, -1.0, 0.5, 1.0])
    return VisualTokens(x.reshape(1, -1, d_), (t_, 1, n_), "video", clip(t_, 1, n_).coords)


def kept(method, tokens, keep: int) -> list[int]:
    return method.select(tokens, keep).keep[0].nonzero().flatten().tolist()


def per_frame(flat: list[int], n: int = 6) -> list[list[int]]:
    return [[i % n for i in flat if i // n == t] for t in range(max(flat) // n + 1)]


@pytest.mark.parametrize(("q", "flat"), [
    (0.5, [0, 1, 2, 3, 4, 5, 8, 9, 15, 20, 21, 23]), (0.6, [0, 1, 2, 3, 4, 5, 8, 15, 23]),
    (0.75, [0, 1, 2, 3, 4, 5]), (0.9, [0, 1, 2, 3, 4, 5]),
])  # fmt: skip
def test_evs_vectors(q, flat):
    assert kept(get_method("evs"), toy(), max(6, int(24 * (1 - q)))) == flat


def distances(tokens: VisualTokens, reference) -> list[list[float | None]]:
    """1 - cos with the last token at the same place not after reference(t); None without one. In float64."""
    coords, x = tokens.coords.tolist(), tokens.features.double()
    out = []
    for s in range(x.shape[0]):
        row: list[float | None] = []
        for i, (part, t, y, u) in enumerate(coords):
            there = [
                j
                for j, c in enumerate(coords)
                if y >= 0 and (c[0], *c[2:]) == (part, y, u) and c[1] <= reference(t)
            ]
            j = max(there, key=lambda j: coords[j][1], default=None)
            row.append(None if j is None else 1 - float(torch.cosine_similarity(x[s, i], x[s, j], 0)))
        out.append(row)
    return out


@st.composite
def videos(draw) -> VisualTokens:
    """Random clips, whole or with tokens taken away by an earlier cut."""
    layout = clip(draw(st.integers(1, 9)), draw(st.integers(1, 3)), 3, draw(st.sampled_from(["", "end"])))
    tokens = make_tokens(layout, images=2, seed=draw(st.integers(0, 99)))
    if draw(st.booleans()):
        left = [i for i in range(tokens.shape[1]) if draw(st.integers(0, 3))] or [0]
        tokens = VisualTokens(tokens.features[:, left], None, "video", tokens.coords[left])
    return tokens


@quick
@given(tokens=videos(), data=st.data())
def test_evs_is_the_largest_change(tokens, data):
    n = tokens.shape[1]
    keep = data.draw(st.integers(1, n))
    selection = get_method("evs").select(tokens, keep)
    for s, row in enumerate(distances(tokens, lambda t: t - 1)):
        first = [i for i in range(n) if row[i] is None]
        if keep >= len(first):
            wanted = sorted(range(n), key=lambda i: (-(9 if row[i] is None else row[i]), i))[:keep]
        else:
            wanted = [first[(len(first) - 1) // 2]]
            if keep > 1:
                wanted = [first[i * (len(first) - 1) // (keep - 1)] for i in range(keep)]
        assert selection.keep[s].nonzero().flatten().tolist() == sorted(wanted)


@pytest.mark.parametrize("name", ["evs", "dycoke"])
@pytest.mark.parametrize("layout", ["square", "newlines", "ragged", "crops", "one"])
def test_an_image_is_thinned_evenly(name, layout):
    tokens = make_tokens(LAYOUTS[layout], images=2)
    for keep in range(1, tokens.shape[1] + 1):
        same = get_method("uniform").select(tokens, keep).keep
        assert torch.equal(get_method(name).select(tokens, keep).keep, same)


@pytest.mark.parametrize("name", ["evs", "dycoke", "cubes", "clip_mean"])
def test_nothing_known_of_places_is_one_picture(name):
    tokens = VisualTokens(torch.randn(2, 20, 4), None)
    assert get_method(name).select(tokens, 7).keep.sum(1).tolist() == [7, 7]


def test_evs_floor():
    assert get_method("evs").floor(24, 16) == 1.0 and get_method("evs", keep=0.1).num_kept(24) == 2
    known = get_method("evs", keep=0.1, frames=4)
    assert known.floor(24, 16) == 6.0 and known.floor(25, 16) == 7.0  # a separator at the end
    with pytest.raises(BudgetError, match=r"first frame.*keep=0.1.*floor is 6.0 \(25.0%\)"):
        known.schedule(24, 16)
    assert get_method("evs", keep=0.25, frames=4).num_kept(24) == 6
    assert get_method("evs", keep=6, frames=4).num_kept(24) == 6


@pytest.mark.parametrize(("tau", "frames"), [
    (0.5, [[0, 1, 2, 3, 4, 5], [2, 3], [3], [5]]), (0.9, [[0, 1, 2, 3, 4, 5], [2, 3], [2, 3], [2, 3, 5]]),
])  # fmt: skip
def test_dtd_vectors(tau, frames):
    assert per_frame(kept(get_method("dtd", tau=tau), toy(), 24)) == frames


@quick
@given(tokens=videos(), tau=st.sampled_from([-0.3, 0.0, 0.2, 0.6]))
def test_dtd_drops_what_is_similar(tokens, tau):
    n = tokens.shape[1]
    mask = get_method("dtd", tau=tau).select(tokens, n).keep
    rows = distances(tokens, lambda t: t - 1)
    assert mask.tolist() == [[d is None or 1 - d <= tau for d in row] for row in rows]
    if tau < 0:
        return
    mask = get_method("dtd", tau=tau, mode="relative").select(tokens, n).keep
    for s, row in enumerate(rows):
        drop = math.floor(tau * n + 0.5)
        similar = sorted((i for i in range(n) if row[i] is not None), key=lambda i: (row[i], -i))[:drop]
        assert mask[s].tolist() == [i not in similar for i in range(n)]


def test_dtd_loses_slow_change_and_leaves_images_alone():
    turn = torch.arange(21) * math.radians(4.5)
    x = torch.stack([turn.cos(), turn.sin()], 1)[None]
    slow = VisualTokens(x, (21, 1, 1), "video", clip(21, 1, 1).coords)
    assert kept(get_method("dtd", tau=0.9), slow, 21) == [0]
    tokens = make_tokens(LAYOUTS["ragged"])
    for mode in ("threshold", "relative"):
        assert get_method("dtd", tau=0.0, mode=mode).select(tokens, 61).keep.all()
    with pytest.raises(TokenPruneError, match="tau"):
        get_method("dtd", tau=-0.5, mode="relative")


def test_dycoke_vectors():
    """Places 0, 1, 4 and 5 of frame 1 are copies of frame 0: of equal ones the lower index stays."""
    official = get_method("dycoke", compat="official")
    whole = [0, 1, 2, 3, 4, 5]
    assert per_frame(kept(official, toy(), 18)) == [whole, [0, 2, 3], whole, [2, 3, 5]]
    assert per_frame(kept(get_method("dycoke"), toy(), 15)) == [whole, [0, 2, 3], [0, 2, 3], [2, 3, 5]]
    longer = per_frame(kept(official, toy(8), 3 * 6 + 5 * 3))
    assert [len(f) for f in longer] == [6, 3, 3, 3, 6, 3, 6, 3]
    assert longer[2] == [0, 2, 3], "the third frame of a window that is not the last"


@quick
@given(tokens=videos(), compat=st.sampled_from([None, "official"]), data=st.data())
def test_dycoke_shares_equally_what_the_whole_frames_leave(tokens, compat, data):
    n, coords = tokens.shape[1], tokens.coords.tolist()
    keep = data.draw(st.integers(1, n))
    selection = get_method("dycoke", compat=compat).select(tokens, keep)
    last = max(c[1] for c in coords) // 4
    rows = distances(tokens, lambda t: 4 * (t // 4) + (2 if t % 4 == 3 else 0))
    for s, row in enumerate(rows):
        whole = [
            i for i, (_, t, y, _) in enumerate(coords)
            if y < 0 or t % 4 == 0 or row[i] is None or (compat and t % 4 == 2 and t // 4 == last)
        ]  # fmt: skip
        mine = selection.keep[s].nonzero().flatten().tolist()
        if keep < len(whole):
            assert set(mine) < set(whole)
            continue
        wanted, queues = list(whole), {}
        for i in sorted(set(range(n)) - set(whole), key=lambda i: (-row[i], i)):
            queues.setdefault(coords[i][1], []).append(i)
        while len(wanted) < keep:
            for t in sorted(queues):
                if queues[t] and len(wanted) < keep:
                    wanted.append(queues[t].pop(0))
        assert mine == sorted(wanted)


@pytest.mark.parametrize(("k", "share"), [(0.7, 0.475), (0.5, 0.625), (1.0, 0.25)])
def test_dycoke_keep_is_the_published_k(k, share):
    """Windows of 4 frames of 20 tokens: int((1 - K) 20) of each frame that is not whole."""
    tokens = make_tokens(clip(8, 4, 5))
    method = get_method("dycoke", keep=share, frames=8)
    counts = method.select(tokens, method.num_kept(160)).keep.view(8, 20).sum(1).tolist()
    assert counts == [20, *[round((1 - k) * 20)] * 3] * 2


def test_dycoke_floor():
    method = get_method("dycoke", keep=0.2, frames=8)
    assert method.floor(160, 16) == 40.0 and get_method("dycoke").floor(160, 16) == 1.0
    assert get_method("dycoke", frames=8, compat="official").floor(160, 16) == 60.0
    assert (
        get_method("dycoke", frames=6, compat="official").floor(120, 16) == 40.0
    )  # no third frame in the last
    assert get_method("dycoke", frames=5).floor(100, 16) == 40.0
    with pytest.raises(BudgetError, match=r"floor is 40.0 \(25.0%\)"):
        method.schedule(160, 16)


def test_dycoke_parts():
    assert [p.stage for p in get_method("dycoke", stages="both").parts()] == ["input", "decode"]
    one = get_method("dycoke")
    assert one.parts() == (one,) and one.stage == "input"
    alone = get_method("dycoke", stages="decode", keep=0.1, frames=2)
    assert alone.parts() == (alone,) and alone.schedule(100, 16) == {} and alone.cut_layers(16) == ()
    assert alone.floor(100, 16) == 100.0 and get_method("dycoke").stage == "input"
    assert (alone.focal_layers(16), alone.dense, alone.num_read(100)) == ((3,), 3, 30)
    official = get_method("dycoke", stages="decode", compat="official")
    assert (official.focal_layers(16), official.dense, official.num_read(100)) == ((2,), 3, 100)
    with pytest.raises(BudgetError, match="layer"):
        alone.focal_layers(3)


@pytest.mark.parametrize("compat", [None, "official"])
def test_dycoke_chooses_anew_only_where_the_gaze_moved(compat):
    b, h, v, drop = 2, 3, 10, 0.7
    method = get_method("dycoke", stages="decode", drop=drop, compat=compat)
    valid = torch.ones(b, v, dtype=torch.bool)
    valid[1, 6:] = False
    g = torch.Generator().manual_seed(0)
    steps = [torch.rand(b, h, v, generator=g)]
    steps.append(steps[0] + 0.01 * torch.rand(b, h, v, generator=g))  # hardly moved: still the first choice
    steps.append(
        steps[1] * torch.tensor([[1.0], [0.0]])[:, None]
        + torch.eye(v)[5] * torch.tensor([0.0, 1.0])[:, None, None]
    )
    state, before, choice = {}, [None] * b, [None] * b
    for a in steps:
        got = method.attend(a, valid, state)
        for row in range(b):
            own = [float(a[row, :, i].mean()) if valid[row, i] else 0.0 for i in range(v)]
            top = sorted((i for i in range(v) if valid[row, i]), key=lambda i: (-own[i], i))
            fresh = sorted(top[: max(1, int((1 - drop) * len(top) + 1e-9))])
            old = before[row]
            if old is not None and sum(p * q for p, q in zip(own, old)) >= 0.9 * math.hypot(
                *own
            ) * math.hypot(*old):
                fresh = choice[row] if compat is None else sorted(top)
            before[row], choice[row] = own, fresh
            assert got[row].nonzero().flatten().tolist() == fresh
