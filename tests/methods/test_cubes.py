"""cubes: where clips are cut, what each cube gets, and that its own tokens decide how it is filled."""

from __future__ import annotations

import pytest
import torch

from tokenprune import budget
from tokenprune.errors import TokenPruneError
from tokenprune.kernels.cubes import frame_change
from tokenprune.kernels.frames import frame_numbers
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, clip, make_tokens


def steps() -> VisualTokens:
    """Twelve frames, 0 x 4, 3 x 5, 10 x 3, of two tokens with two channels."""
    v = torch.tensor([0.0] * 4 + [3.0] * 5 + [10.0] * 3)
    return VisualTokens(
        v[:, None, None].expand(12, 2, 2).reshape(1, 24, 2), (12, 1, 2), "video", clip(12, 1, 2).coords
    )


def starts(method, tokens: VisualTokens, keep: int = 6) -> list[list[int]]:
    """First frames of the cubes of each clip."""
    cube = method.cube(tokens, keep)[0]
    frame = frame_numbers(tokens.coords)
    return [[int(frame[row == c].min()) for c in row.unique().tolist()] for row in cube]


def test_the_vector_of_twelve_frames():
    tokens = steps()
    e = frame_change(tokens.features, tokens.coords, frame_numbers(tokens.coords), 12, 0.8)[0]
    wanted = torch.tensor([0, 0, 0, 0, 3.394, 0.679, 0.136, 0.027, 0.005, 7.921, 1.584, 0.317])
    torch.testing.assert_close(e, wanted, rtol=0, atol=6e-4)
    assert starts(get_method("cubes"), tokens) == [[0, 9]]
    assert starts(get_method("cubes", frames_per_cube=4), tokens) == [[0, 4, 9]]
    assert starts(get_method("cubes", frames_per_cube=3), tokens) == [[0, 4, 9, 11]], "10 is an echo of 9"
    assert starts(get_method("cubes", frames_per_cube=3, radius=4), tokens) == [[0, 4, 9]], (
        "no room for a third"
    )


@pytest.mark.parametrize(("frames", "hyper", "cuts"), [
    (12, {}, 1), (1, {}, 0), (2, {}, 1), (32, {}, 5), (25, {"frames_per_cube": 10}, 2), (3, {"frames_per_cube": 1}, 2),
    (12, {"tokens_per_cube": 64}, 1), (12, {"tokens_per_cube": 300}, 0), (12, {"tokens_per_cube": 1}, 11),
])  # fmt: skip
def test_how_many_cuts(frames, hyper, cuts):
    assert get_method("cubes", **hyper).num_cuts(frames, 128) == cuts


def scenes(images: int = 2, seed: int = 0) -> VisualTokens:
    """Clips of 12 frames of 3 x 4 tokens with a change of scene at 3 and 8, or (every other one) at 5 and 7."""
    g = torch.Generator().manual_seed(seed)
    rows = []
    for s in range(images):
        a, b = ((3, 8), (5, 7))[s % 2]
        scene = [0] * a + [1] * (b - a) + [2] * (12 - b)
        rows.append(3 * torch.randn(3, 12, 9, generator=g)[scene] + 0.3 * torch.randn(12, 12, 9, generator=g))
    return VisualTokens(torch.stack(rows).view(images, 144, 9), (12, 3, 4), "video", clip(12, 3, 4).coords)


@pytest.mark.parametrize("density", ["momentum", "cosine"])
def test_scenes_are_found(density):
    method = get_method("cubes", density=density, frames_per_cube=4)
    assert starts(method, scenes()) == [[0, 3, 8], [0, 5, 7]]


@pytest.mark.parametrize("fill", ["farthest", "uniform", "random", "evs"])
@pytest.mark.parametrize("frames_per_cube", [2, 4])
def test_cubes_get_equal_shares_up_to_their_size(fill, frames_per_cube):
    tokens = scenes(images=4)
    method = get_method("cubes", fill=fill, frames_per_cube=frames_per_cube)
    for keep in (1, 2, 3, 30, 71, 72, 73, 100, 143, 144):
        cube, most, _ = method.cube(tokens, keep)
        mask = method.select(tokens, keep).keep
        for row, mine in zip(cube, mask):
            sizes = row.bincount(minlength=most).tolist()
            assert row[mine].bincount(minlength=most).tolist() == budget.share_out([1.0] * most, keep, sizes)


def members(tokens: VisualTokens, row: torch.Tensor, s: int, c: int) -> tuple[torch.Tensor, VisualTokens]:
    inside = (row == c).nonzero().flatten()
    return inside, VisualTokens(tokens.features[s : s + 1, inside], None, "image", None)


@pytest.mark.parametrize("fill", ["farthest", "uniform"])
def test_each_cube_is_filled_as_if_it_were_alone(fill):
    """`uniform` of its tokens; or `farthest` of them as one picture, which is one cube."""
    tokens = scenes(images=2)
    method = get_method("cubes", fill=fill, frames_per_cube=4)
    alone = method if fill == "farthest" else get_method("uniform")
    for keep in (5, 31, 60):
        cube = method.cube(tokens, keep)[0]
        mask = method.select(tokens, keep).keep
        for s, row in enumerate(cube):
            for c in row.unique().tolist():
                inside, part = members(tokens, row, s, c)
                share = int(mask[s, inside].sum())
                assert torch.equal(mask[s, inside], alone.select(part, share).keep[0])


def test_another_method_ranks_the_clip_and_cubes_take_their_share():
    tokens = scenes(images=2)
    tokens.ordinal = torch.tensor([4, 9])
    method, keep = get_method("cubes", fill="random", frames_per_cube=4), 40
    cube, mask = method.cube(tokens, keep)[0], method.select(tokens, keep).keep
    answer = get_method("random").select(tokens, keep)
    for s, row in enumerate(cube):
        for c in row.unique().tolist():
            inside = (row == c).nonzero().flatten().tolist()
            order = sorted(inside, key=lambda i: (not answer.keep[s, i], -float(answer.scores[s, i]), i))
            share = int(mask[s, inside].sum())
            assert sorted(i for i in inside if mask[s, i]) == sorted(order[:share])


@pytest.mark.parametrize("layout", ["square", "ragged", "newlines"])
def test_an_image_is_one_cube(layout):
    tokens = make_tokens(LAYOUTS[layout], images=2)
    for fill in ("uniform", "random", "flashvlm"):
        same = get_method(fill).select(tokens, 11).keep
        assert torch.equal(get_method("cubes", fill=fill).select(tokens, 11).keep, same)


def test_frames_are_counted_on_the_device_behind_an_earlier_cut():
    """Whole frames and no grid: the same cubes and the same choice; and a clip with tokens missing still works."""
    tokens = scenes()
    for fill in ("farthest", "uniform"):
        method = get_method("cubes", fill=fill, frames_per_cube=4)
        wanted = method.select(tokens, 33).keep
        blind = VisualTokens(tokens.features, None, "video", tokens.coords)
        assert starts(method, blind, 33) == starts(method, tokens, 33)
        assert torch.equal(method.select(blind, 33).keep, wanted)
    left = torch.arange(144)[torch.arange(144) % 3 > 0]
    cut = VisualTokens(tokens.features[:, left], None, "video", tokens.coords[left])
    method = get_method("cubes", frames_per_cube=4)
    assert starts(method, cut, 10) == [[0, 3, 8], [0, 5, 7]]
    assert method.select(cut, 10).keep.sum(1).tolist() == [10, 10]


def test_what_fill_may_be():
    assert get_method("quicksviewer", fill="flashvlm").needs == get_method("flashvlm").needs
    assert get_method("cubes", fill="flashvlm").query_aware and not get_method("cubes").query_aware
    assert get_method("cubes").needs == frozenset()
    for fill in ("cubes", "quicksviewer", "fastv", "fixation", "dtd", "nothing", None):
        with pytest.raises(TokenPruneError, match="fill"):
            get_method("cubes", fill=fill)
    with pytest.raises(TokenPruneError, match="no scores"):
        get_method("cubes", fill="pool").select(steps(), 6)
