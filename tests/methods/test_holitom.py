"""HoliTom against one clip at a time in float64 and plain Python, windows by trying every tiling."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.tiny.models import FAMILIES
from tokenprune import patch_model
from tokenprune.errors import TokenPruneError
from tokenprune.kernels import unit
from tokenprune.kernels.frames import latest_at
from tokenprune.kernels.framing import frame_before, frames_of, places_of
from tokenprune.kernels.windows import Windows, still_heads, still_windows
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, clip, make_tokens, take
from .toy import toy

quick = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def windows_of(tokens: VisualTokens, tau: float) -> Windows:
    return still_windows(alike_of(tokens, tau).view(len(tokens.features), tokens.grid[0], -1))


def alike_of(tokens: VisualTokens, tau: float) -> torch.Tensor:
    before, x = latest_at(tokens.coords, tokens.coords[:, 1] - 1), unit(tokens.features)
    return ((x * x[:, before.clamp_min(0)]).sum(2) > tau) & (before >= 0)


def heads_of(tokens: VisualTokens, tau: float) -> torch.Tensor:
    frames = frames_of(tokens)
    return still_heads(
        alike_of(tokens, tau), places_of(tokens, frames), frames.of, torch.arange(tokens.features.shape[1])
    )


def still_places(alike: list[list[bool]], s: int, e: int) -> list[int]:
    return [i for i in range(len(alike[0])) if all(alike[t][i] for t in range(s, e))] if e > s else []


def best_tiling(alike: list[list[bool]], count: int) -> tuple[list[tuple[int, int]], int]:
    """Every way to cut the clip; of the best, the one whose last window begins last, then the one before it."""
    found = []
    for cuts in itertools.product([False, True], repeat=count - 1):
        starts = [0, *(t + 1 for t, cut in enumerate(cuts) if cut)]
        tiles = list(zip(starts, [s - 1 for s in starts[1:]] + [count - 1]))
        gain = sum(len(still_places(alike, s, e)) * (e - s) for s, e in tiles)
        found.append((gain, starts[::-1], tiles))
    best = max(found, key=lambda f: (f[0], f[1]))
    return best[2], best[0]


def moving(seed: int, images: int, frames: int, h: int, w: int) -> VisualTokens:
    """Clips in which a token follows the one before it closely or not, so that windows differ."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(images, frames, h * w, 6, generator=g)
    for t in range(1, frames):
        follows = torch.rand(images, h * w, 1, generator=g) < 0.7
        x[:, t] = torch.where(follows, x[:, t - 1] + 0.3 * x[:, t], x[:, t])
    layout = clip(frames, h, w)
    saliency = torch.rand(images, frames * h * w, generator=g)
    return VisualTokens(
        x.flatten(1, 2), layout.grid, "video", layout.coords, saliency=saliency, question=[""] * images
    )


@pytest.mark.parametrize(
    ("tau", "tiles", "copies"), [(0.8, [0, 0, 0, 0], 9), (0.5, [0, 0, 2, 2], 9), (1.1, [0, 1, 2, 3], 0)]
)
def test_windows_of_the_toy_clip(tau, tiles, copies):
    found = windows_of(toy(), tau)
    assert found.start.tolist() == [tiles] and found.gain.tolist() == [copies]
    assert int((heads_of(toy(), tau) != torch.arange(24)).sum()) == copies


@quick
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 3), st.sampled_from([-2.0, 0.5, 0.8]))
def test_windows_are_the_best_tiling(seed, frames, h, tau):
    tokens = moving(seed, 3, frames, h, 2)
    found, heads, places = windows_of(tokens, tau), heads_of(tokens, tau), 2 * h
    for i in range(3):
        x = tokens.features[i].view(frames, places, -1).double()
        alike = [
            [bool(torch.cosine_similarity(x[t, p], x[t + 1, p], dim=0) > tau) for p in range(places)]
            for t in range(frames - 1)
        ] or [[False] * places]
        tiles, gain = best_tiling(alike, frames)
        assert int(found.gain[i]) == gain
        assert found.start[i].tolist() == [s for s, e in tiles for _ in range(s, e + 1)]
        head = list(range(frames * places))
        for s, e in tiles:
            for p, t in itertools.product(still_places(alike, s, e), range(s, e + 1)):
                head[t * places + p] = s * places + p
        assert heads[i].tolist() == head


def holed(layout: str) -> VisualTokens:
    """A clip as it is, with a separator at its end, or after a cut that took a whole frame and parts of the others."""
    tokens = make_tokens(LAYOUTS[layout.removesuffix(", cut")], images=2)
    if layout.endswith("cut"):
        left = [i for i in range(49) if i // 16 != 1 and i % 5]
        tokens = VisualTokens(tokens.features[:, left], None, "video", tokens.coords[left])
    return tokens


@pytest.mark.parametrize("layout", ["video", "video-newline", "video-newline, cut"])
@pytest.mark.parametrize("likely", [0.3, 0.9, 1.0])
def test_still_places_of_clips_with_holes_and_separators(layout, likely):
    tokens = holed(layout)
    frames, n = frames_of(tokens), tokens.features.shape[1]
    before = frame_before(tokens, frames)
    alike = (torch.rand(2, n, generator=torch.Generator().manual_seed(1)) < likely) & (before >= 0)
    heads = still_heads(alike, places_of(tokens, frames), frames.of, torch.arange(n))
    where = tokens.coords[:, 2:].tolist()
    spots = sorted({(y, x) for y, x in where if y >= 0})
    at = {(int(frames.of[i]), (y, x)): i for i, (y, x) in enumerate(where)}
    for s in range(2):
        steps = [[(t, p) in at and bool(alike[s, at[t, p]]) for p in spots] for t in range(1, frames.count)]
        expected = list(range(n))
        for first, last in best_tiling(steps, frames.count)[0]:
            for p in still_places(steps, first, last):
                for t in range(first, last + 1):
                    expected[at[t, spots[p]]] = at[first, spots[p]]
        assert heads[s].tolist() == expected
    assert likely < 1 or (heads != torch.arange(n)).any()


def shares(weights: list[int], total: int, cap: int) -> list[int]:
    """Highest averages after Webster, in exact fractions: one after the other to the least (s + 1/2) / weight."""
    out = [0] * len(weights)
    for _ in range(total):
        open_ = [t for t in range(len(out)) if out[t] < cap]
        out[
            min(open_, key=lambda t: (not weights[t], Fraction(2 * out[t] + 1, 2 * max(weights[t], 1)), t))
        ] += 1
    return out


def reference(tokens: VisualTokens, i: int, keep: int, head: list[int], places: int):
    """(kept, {slot: mean}, owner, closest call) of clip i without spatial merging."""
    n, frames = len(head), len(head) // places
    x, saliency = tokens.features[i].double(), tokens.saliency[i].double().tolist()
    members = {h: [j for j in range(n) if head[j] == h] for h in set(head)}
    score = {
        j: sum(saliency[m] for m in members[j]) / len(members[j]) if head[j] == j else saliency[j]
        for j in range(n)
    }
    left = [sum(head[t * places + p] == t * places + p for p in range(places)) for t in range(frames)]
    quota, kept, close = shares(left, keep, places), [], 1.0
    for t in range(frames):
        own = range(t * places, (t + 1) * places)
        order = sorted(own, key=lambda j: (head[j] != j, -score[j], j))
        kept += order[: quota[t]]
        if 0 < quota[t] < places:
            a, b = order[quota[t] - 1 : quota[t] + 1]
            close = min(close, score[a] - score[b] if (head[a] == a) == (head[b] == b) else 1.0)
    owner = [j if j in kept else head[j] if head[j] in kept else -1 for j in range(n)]
    mean = {j: x[[m for m in range(n) if owner[m] == j]].mean(0) for j in kept}
    return sorted(kept), mean, owner, close


@quick
@given(st.integers(0, 10**6), st.data())
def test_agrees_with_a_float64_loop(seed, data):
    tokens = moving(seed, 2, 5, 2, 3)
    keep = data.draw(st.integers(1, 30))
    selection, heads = get_method("holitom").select(tokens, keep), heads_of(tokens, 0.8)
    for i in range(2):
        kept, mean, owner, close = reference(tokens, i, keep, heads[i].tolist(), 6)
        assume(close > 1e-6)
        assert selection.keep[i].nonzero().flatten().tolist() == kept
        assert selection.owner[i].tolist() == owner
        for j in kept:
            torch.testing.assert_close(selection.features[i, j].double(), mean[j], rtol=1e-4, atol=1e-5)


def test_a_still_clip_is_said_once_and_may_be_said_again():
    """16 places that never change: what fits is their first frame, what is more are copies of it."""
    layout = clip(4, 4, 4)
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)).repeat(4, 1)[None]
    tokens = VisualTokens(x, layout.grid, "video", layout.coords, saliency=torch.rand(1, 64))
    at16 = get_method("holitom").select(tokens, 16)
    assert at16.keep[0].nonzero().flatten().tolist() == list(range(16))
    assert at16.owner[0].tolist() == list(range(16)) * 4
    torch.testing.assert_close(at16.features[0, :16], x[0, :16])
    more = get_method("holitom").select(tokens, 40)
    assert more.keep[0, :16].all() and more.keep.sum() == 40
    assert (more.owner >= 0).all(), "nothing is lost of a clip that is kept whole"


def test_a_pan_leaves_nothing_still():
    """The trap: the same picture, one column further in each frame."""
    wide = torch.randn(4, 9, 16, generator=torch.Generator().manual_seed(1))
    x = torch.stack([wide[:, t : t + 4] for t in range(5)]).reshape(1, 80, 16)
    layout = clip(5, 4, 4)
    assert int(windows_of(VisualTokens(x, layout.grid, "video", layout.coords), 0.8).gain) == 0


def test_the_rest_of_a_frame_is_merged_into_its_peaks():
    """With beta 0 and all quotas as peaks every token of a clip without still places is in exactly one plain mean."""
    tokens = make_tokens(LAYOUTS["video"], images=2)
    selection = get_method("holitom", tau=1.0, context=1.0, beta=0.0).select(tokens, 15)
    owner, frame = selection.owner, torch.arange(60) // 12
    assert (owner >= 0).all() and selection.keep.view(2, 5, 12).sum(2).tolist() == [[3] * 5] * 2
    for i in range(2):
        assert torch.equal(frame[owner[i]], frame), "nothing leaves its frame"
        kept = selection.keep[i].nonzero().flatten().tolist()
        for j in range(60):
            near = torch.cosine_similarity(tokens.features[i, [j]], tokens.features[i, kept])
            near = near.masked_fill(frame[kept] != frame[j], -2)
            assert j in kept or owner[i, j] == kept[int(near.argmax())]
        for j in kept:
            mean = tokens.features[i][owner[i] == j].mean(0)
            torch.testing.assert_close(selection.features[i, j], mean, rtol=1e-4, atol=1e-5)
    half = get_method("holitom", tau=1.0, context=0.5).select(tokens, 15)
    plain = get_method("holitom", tau=1.0).select(tokens, 10)
    assert half.keep.sum(1).tolist() == [15, 15] and (half.keep & plain.keep).sum() >= 15


def test_clips_of_different_lengths_equal_themselves():
    long, short = moving(3, 2, 6, 2, 3), moving(4, 2, 3, 2, 3)
    for tokens in (long, short):
        whole = get_method("holitom", context=0.5).select(tokens, 9)
        for i in range(2):
            alone = get_method("holitom", context=0.5).select(take(tokens, [i]), 9)
            assert torch.equal(alone.keep[0], whole.keep[i]) and torch.equal(alone.owner[0], whole.owner[i])


def test_the_inner_merge_halves_in_turn():
    tokens = make_tokens(LAYOUTS["square"], images=2)
    part = get_method("holitom", inner=0.5).parts()[1]
    selection = part.select(tokens, 9)
    for i in range(2):
        kept = tokens.attention[i].argsort(descending=True, stable=True)[:9].sort().values.tolist()
        assert selection.keep[i].nonzero().flatten().tolist() == kept
        x = tokens.features[i].double()
        state = {j: x[j] for j in kept}
        for j in range(36):
            if j not in state:
                near = torch.cosine_similarity(x[j], x[kept])
                assert selection.owner[i, j] == kept[int(near.argmax())]
                state[kept[int(near.argmax())]] = (state[kept[int(near.argmax())]] + x[j]) / 2
        for j in kept:
            torch.testing.assert_close(selection.features[i, j].double(), state[j], rtol=1e-4, atol=1e-5)


def test_both_parts_on_a_model(tmp_path):
    family = FAMILIES["qwen2_5_vl"]
    model, inputs = family.build(), family.inputs("mixed_batch")
    method = get_method("holitom", keep=0.5, inner=0.5, layer=2)
    assert get_method("holitom", inner=0.5).schedule(576, 28) == {0: 144, 18: 72}
    with torch.no_grad(), patch_model(model, method) as handle:
        logits = model(**inputs).logits
        for i in handle.report.images:
            plan = method.schedule(i.before, 4)
            assert i.per_layer == [plan[0], plan[0], plan[2], plan[2]] and i.after == method.num_kept(
                i.before, 4
            )
        path = handle.recipe().save(tmp_path / "recipe.yaml")
    with torch.no_grad(), patch_model(model, recipe=path):
        assert torch.equal(model(**inputs).logits, logits)


@pytest.mark.parametrize(
    "hyper",
    [
        {"inner": 0.0},
        {"inner": "half"},
        {"layer": 0},
        {"tau": 2},
        {"context": -0.1},
        {"beta": True},
        {"neighbours": 0},
    ],
)
def test_what_is_refused(hyper):
    with pytest.raises(TokenPruneError, match=next(iter(hyper))):
        get_method("holitom", **hyper)
    tokens = make_tokens(LAYOUTS["video"])
    tokens.saliency = None
    with pytest.raises(TokenPruneError, match="attention"):
        get_method("holitom").select(tokens, 5)
