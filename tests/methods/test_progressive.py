"""`progressive` against a token-by-token reference, its published-by-design vectors, and its streams."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune import VisualTokens, get_method
from tokenprune.errors import TokenPruneError

from .make import LAYOUTS, clip, image, make_tokens
from .progressive_reference import adaptive_counts, progressive, toy, unit

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def video(x) -> VisualTokens:
    """(T, N, D) or (S, T, N, D)."""
    x = torch.as_tensor(np.asarray(x)).float()
    x = x if x.dim() == 4 else x[None]
    return VisualTokens(x.flatten(1, 2), (x.shape[1], 1, x.shape[2]), "video")


def per_frame(keep: torch.Tensor, frames: int) -> list[list[int]]:
    return [f.nonzero().flatten().tolist() for f in keep[: keep.shape[0]].view(frames, -1)]


def chosen(x, keep=1, **hyper) -> list[list[int]]:
    return per_frame(get_method("pvc", keep=keep, **hyper).select(video(x), keep).keep[0], len(x))


def residuals(x: np.ndarray, kept: list[list[int]]) -> np.ndarray:
    u = unit(x)
    memory = np.concatenate([f[k] for f, k in zip(u, kept)])
    return 1 - (u @ memory.T).max(2)


def test_toy_clip():
    x = toy()
    assert chosen(x, 4) == [[5], [2], [3], [1]]
    kept = chosen(x, 8)
    assert kept == [[2, 5], [0, 1], [2, 3], [3, 5]]
    left = residuals(x, kept)
    assert left.mean() == pytest.approx(0.0651, abs=5e-5) and left.max() == pytest.approx(0.7530, abs=5e-5)


@pytest.mark.parametrize("frame", range(4))
def test_passes_over_a_still_clip_keep_what_one_pass_keeps(frame):
    one = toy()[frame : frame + 1]
    for k in (1, 2, 3):
        passes = 6 // k
        together = sorted(i for f in chosen(np.repeat(one, passes, 0), 6, k_min=0) for i in f)
        assert together == chosen(one, 6)[0] == list(range(6))
    if frame == 3:
        together = sorted(i for f in chosen(np.repeat(one, 4, 0), 4) for i in f)
        assert together == chosen(one, 4)[0] and len(together) == 4


def test_slow_change_is_seen():
    """4.5 degrees a frame: no frame differs from the one before it by 0.1, but from the last one kept."""
    angle = np.arange(21) * math.radians(4.5)
    x = np.stack([np.cos(angle), np.sin(angle)], 1)[:, None]
    kept = chosen(x, budget="threshold", eps=0.1, k_min=0)
    assert [t for t, f in enumerate(kept) if f] == [0, 6, 12, 18]


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """32 frames of 14 x 14: a still background, a moving 3 x 3 object, another background from frame 16 on."""
    rng = np.random.default_rng(0)
    backgrounds, thing = rng.standard_normal((2, 196, 128)), rng.standard_normal((9, 128))
    x = np.stack([backgrounds[t // 16] for t in range(32)])
    for t in range(32):
        places = [(2 + i // 3 + t % 8) * 14 + 3 + i % 3 + t // 4 for i in range(9)]
        x[t, places] = thing
    return x + 0.25 * rng.standard_normal(x.shape)


def test_adaptive_budgets_find_the_cut(scene):
    kept = chosen(scene, 627, budget="adaptive")
    counts = [len(f) for f in kept]
    assert sum(counts) == 627 and min(counts) >= 2
    assert counts[0] == max(counts) > 80 and counts[16] > 80
    assert max(c for t, c in enumerate(counts) if t not in (0, 16)) < 25


@pytest.mark.parametrize("budget", ["fixed", "adaptive"])
def test_coverage_is_far_better_than_chance_and_than_the_frame_before(scene, budget):
    ours = residuals(scene, chosen(scene, 627, budget=budget))
    rng = np.random.default_rng(1)
    flat = np.zeros(32 * 196, dtype=bool)
    flat[rng.permutation(32 * 196)[:627]] = True
    by_chance = residuals(scene, [np.flatnonzero(f).tolist() for f in flat.reshape(32, 196)])
    u = unit(scene)
    change = np.concatenate([np.full((1, 196), 255), 1 - (u[1:] * u[:-1]).sum(2)]).ravel()
    top = np.zeros(32 * 196, dtype=bool)
    top[np.argsort(-change, kind="stable")[:627]] = True
    by_change = residuals(scene, [np.flatnonzero(f).tolist() for f in top.reshape(32, 196)])
    assert ours.max() < 0.2 < 0.5 < min(by_chance.max(), by_change.max())
    assert ours.mean() < 0.5 * min(by_chance.mean(), by_change.mean())


@quick
@given(data=st.data())
def test_equals_the_reference(data):
    frames, n = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 9))
    images, seed = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    still = rng.standard_normal((images, 1, n, 8)) * data.draw(st.sampled_from([0.0, 2.0]))
    x = (still + rng.standard_normal((images, frames, n, 8))).astype(np.float32)
    sigma = rng.random((images, frames, n)).astype(np.float32) + 0.05
    budget = data.draw(st.sampled_from(["fixed", "adaptive", "threshold"]))
    keep = data.draw(st.integers(1, frames * n))
    hyper = {
        "window": data.draw(st.none() | st.integers(1, 4)),
        "reset_on_cut": data.draw(st.none() | st.sampled_from([0.3, 0.6, 0.9])),
        "gamma": data.draw(st.sampled_from([0.0, 1.0])),
        "k_min": data.draw(st.integers(0, 3)),
    }
    if budget == "adaptive":
        share = -(-keep // frames)
        assume(hyper["window"] is None or keep <= max(n, 2 * hyper["window"] * share))
    tokens = video(x)
    tokens.saliency = torch.from_numpy(sigma).flatten(1)
    got = get_method("progressive", keep=keep, budget=budget, eps=0.4, **hyper).select(tokens, keep)
    for i in range(images):
        counts = None
        if budget == "fixed":
            counts = [len(f) for f in per_frame(got.keep[i], frames)]
            assert sum(counts) == keep and max(counts) - min(counts) <= 1
        elif budget == "adaptive":
            counts = adaptive_counts(x[i], keep, hyper["k_min"])
        wanted, close = progressive(
            x[i].astype(np.float64), counts, 0.4, min(hyper["k_min"], n), hyper["window"], hyper["reset_on_cut"],
            sigma[i].astype(np.float64), hyper["gamma"],
        )  # fmt: skip
        assume(close > 1e-5)
        assert per_frame(got.keep[i], frames) == wanted


def test_counts_of_adaptive_equal_the_reference(scene):
    kept = chosen(scene[10:20], 300, budget="adaptive")
    assert [len(f) for f in kept] == adaptive_counts(scene[10:20], 300)


@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("cut", [None, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_stream_equals_the_whole_clip_bit_for_bit(scene, window, cut, dtype):
    x = torch.from_numpy(scene).to(dtype)
    method = get_method("progressive", budget="threshold", eps=0.15, window=window, reset_on_cut=cut)
    tokens = VisualTokens(x.flatten(0, 1)[None], (32, 14, 14), "video")
    whole = method.select(tokens, tokens.shape[1]).keep[0].view(32, 196)
    stream = method.stream()
    for t, frame in enumerate(x):
        new = stream.update(frame)
        assert new.dtype == torch.bool and torch.equal(new, whole[t]), t
    assert whole[0].sum() > 100 and 2 <= whole[1].sum() < 40 and whole.sum(1).min() >= 2


def held(stream) -> int:
    """Bytes of all tensors reachable from a stream."""
    seen, todo, total = set(), [stream], 0
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            total += item.untyped_storage().nbytes()
        elif isinstance(item, (list, tuple)) or type(item).__name__ == "deque":
            todo += list(item)
        else:
            todo += list(getattr(item, "__dict__", {}).values())
    return total


def test_memory_of_a_stream_is_bounded_by_its_window():
    g = torch.Generator().manual_seed(0)
    stream, sizes = get_method("progressive", budget="threshold", window=3, eps=0.0).stream(), []
    for _ in range(60):  # every token of every frame is new
        assert stream.update(torch.randn(20, 16, generator=g)).all()
        sizes.append(held(stream))
    rows = 16 * 4 + 8
    assert sizes[0] > 20 * rows - 1, "the walk sees the memory"
    assert max(sizes) <= 3 * 3 * 20 * rows and max(sizes[30:]) <= max(sizes[:15])


@pytest.mark.parametrize("hyper", [{"budget": "fixed"}, {"window": None}, {"gamma": 1.0}])
def test_no_stream_without_a_threshold_and_a_window(hyper):
    method = get_method("progressive", **{"budget": "threshold", "window": 4, **hyper})
    with pytest.raises(TokenPruneError, match="stream needs"):
        method.stream()
    with pytest.raises(TokenPruneError, match="does not work on streams"):
        get_method("uniform").stream()


@pytest.mark.parametrize("budget", ["fixed", "adaptive"])
@pytest.mark.parametrize("k_min", [0, 1, 2, 9])
def test_every_frame_has_its_tokens(budget, k_min):
    x = make_tokens(clip(6, 3, 5), images=3)
    for keep in range(1, 91, 4):
        kept = get_method("progressive", keep=keep, budget=budget, k_min=k_min).select(x, keep).keep
        counts = kept.view(3, 6, 15).sum(2)
        assert counts.sum(1).tolist() == [keep] * 3 and int(counts.min()) >= min(k_min, keep // 6)


@pytest.mark.parametrize("budget", ["fixed", "adaptive"])
def test_copies_go_to_the_lower_index(budget):
    x = torch.ones(2, 24, 5)
    tokens = VisualTokens(x, (3, 2, 4), "video")
    kept = get_method("progressive", budget=budget).select(tokens, 9).keep.view(2, 3, 8)
    assert all(f.nonzero().flatten().tolist() == list(range(int(f.sum()))) for s in kept for f in s)


def test_separators():
    rows = make_tokens(image(4, 5, "row"))
    newline = rows.coords[:, 2] < 0
    for keep in range(1, 25):
        kept = get_method("progressive").select(rows, keep).keep[0]
        assert int((kept & newline).sum()) == max(0, keep - 20)
    tail = make_tokens(LAYOUTS["video-newline"])
    mixed = make_tokens(LAYOUTS["video-newline"])
    order = torch.randperm(49, generator=torch.Generator().manual_seed(0)).sort().values.roll(1)
    mixed.features, mixed.coords = mixed.features[:, order], mixed.coords[order]  # the separator first
    for keep in range(1, 50):
        kept = get_method("progressive", absorb=True).select(tail, keep)
        assert bool(kept.keep[0, 48]) == (keep > 3) and int(kept.keep.sum()) == keep
        again = get_method("progressive", absorb=True).select(mixed, keep)
        assert torch.equal(again.keep, kept.keep[:, order])
        place = torch.empty_like(order).scatter_(0, order, torch.arange(49))
        moved = kept.owner[:, order]
        assert torch.equal(again.owner, torch.where(moved < 0, -1, place[moved.clamp_min(0)]))


def test_absorb_is_what_its_formula_says():
    tokens = make_tokens(clip(3, 4, 4), dim=3)  # few dimensions: many are near
    x = tokens.features[0].double()
    method = get_method("progressive", keep=9, absorb=True)
    got = method.select(tokens, 9)
    assert torch.equal(got.keep, get_method("progressive", keep=9, absorb=False).select(tokens, 9).keep)
    u, kept = x / x.norm(dim=1, keepdim=True), got.keep[0]
    owner = []
    for i in range(48):
        mates = [j for j in range(i // 16 * 16, i // 16 * 16 + 16) if kept[j]]
        best = max(mates, key=lambda j: float(u[i] @ u[j]))
        owner.append(i if kept[i] else best if u[i] @ u[best] > 0.8 else -1)
    assert got.owner[0].tolist() == owner
    sizes = set()
    for j in kept.nonzero().flatten().tolist():
        others = [i for i in range(48) if owner[i] == j and i != j]
        w = max(1 / (len(others) + 1), 0.6)
        mean = x[others].mean(0) if others else x[j]
        torch.testing.assert_close(got.features[0, j].double(), w * x[j] + (1 - w) * mean)
        sizes.add(min(len(others), 2))
    assert sizes == {0, 1, 2}, "none, one and several are all tried"


def test_absorb_follows_the_family():
    tokens = make_tokens(clip(3, 4, 4), dim=3)
    method = get_method("progressive")
    assert method.select(tokens, 9).features is None
    tokens.merge_friendly = True
    assert method.select(tokens, 9).features is not None
    assert get_method("progressive", absorb=False).select(tokens, 9).features is None


def test_needs_and_exactness_follow_the_hyper_parameters():
    assert get_method("progressive").needs == frozenset() and get_method("progressive").exact
    assert get_method("progressive", gamma=0.5).needs == {"saliency"}
    method = get_method("progressive", budget="threshold")
    assert not method.exact and method.schedule(100, 4) is None and method.num_kept(100) is None
    with pytest.raises(TokenPruneError, match="tower's attention"):
        get_method("progressive", gamma=1.0).select(video(toy()), 4)
