"""Grids, coordinates and numbers of images as methods see them, worked out by hand for every family."""

from __future__ import annotations

import pytest
import torch

from tests.hooks.spy import Spy
from tests.tiny.models import FAMILIES
from tokenprune import patch_model
from tokenprune.errors import PatchError
from tokenprune.families.shapes import flat_shape, grid_shape
from tokenprune.hooks.layout import Features, find_layout

CASES = [(name, kind) for name, family in FAMILIES.items() for kind in family.kinds if kind != "text"]
SQUARE = {"llava": 5, "vipllava": 5, "gemma3": 4, "paligemma": 4}
SQUARE |= {"deepseek_vl": 4, "deepseek_vl_hybrid": 4, "fast_vlm": 3}


def grid(part: int, h: int, w: int, t: int = 1, newline: bool = False) -> list[tuple[int, int, int, int]]:
    """Coordinates in raster order; with `newline` one behind each row."""
    rows = [[(part, f, y, x) for x in range(w)] for f in range(t) for y in range(h)]
    return [c for row in rows for c in (*row, *([(*row[0][:2], -1, -1)] if newline else []))]


def by_hand(name: str, media: str) -> tuple[tuple | None, list[tuple]]:
    """(grid, coordinates) of one image or video of the tiny prompts."""
    if name in SQUARE:
        return (1, SQUARE[name], SQUARE[name]), grid(0, SQUARE[name], SQUARE[name])
    if name == "idefics2":  # a resampler's tokens have no place
        return None, grid(0, 1, 12) if media == "plain" else sum([grid(p, 1, 12) for p in (1, 2, 3, 4, 0)], [])
    if name == "deepseek_ocr2":  # queries have none either; a separator at the end
        parts = (1, 2, 0) if media == "split" else (0,)
        return None, [*sum([grid(p, 1, 16) for p in parts], []), (0, 0, -1, -1)]
    if name == "perception_lm":
        if media == "video":
            return (3, 3, 3), grid(0, 3, 3, t=3)
        return None, grid(0, 3, 3) + grid(1, 3, 3) + grid(2, 3, 3)
    if name == "molmo2":
        return ((3, 3, 3), grid(0, 3, 3, t=3)) if media == "video" else (None, grid(0, 3, 3) + grid(1, 3, 5))
    if name == "ovis2" and media == "tiles":
        return None, grid(0, 4, 4) + grid(1, 4, 4) + grid(2, 4, 4)  # the thumbnail comes first
    if name == "lfm2_vl" and media == "tiles":  # the thumbnail is smaller
        return None, grid(1, 3, 3) + grid(2, 3, 3) + grid(0, 2, 3)
    if media in ("plain", "tiles") or name in ("internvl", "smolvlm", "idefics3"):
        if media == "video":
            return (3, 4, 4), grid(0, 4, 4, t=3)
        if media == "plain":
            return (1, 4, 4), grid(0, 4, 4)
        return None, grid(1, 4, 4) + grid(2, 4, 4) + grid(0, 4, 4)  # the thumbnail comes last
    if media.endswith(":frame"):
        media = media.removesuffix(":frame")
    if name == "video_llava":
        if media == "image":
            return (1, 3, 3), grid(0, 3, 3)
        frames = [[(0, f, -1, -1), *[(0, f, y, x) for y in range(3) for x in range(3)]] for f in range(3)]
        return (3, 3, 3), sum(frames, [])  # each frame's class token before it
    if name == "llava_next_video":
        if media == "video":
            return (3, 2, 2), grid(0, 2, 2, t=3)
        h, w = {"10x60": (2, 8), "60x10": (8, 2)}[media]
        return None, grid(0, 4, 4) + grid(1, h, w, newline=True)
    if name == "llava_onevision" and media == "video":
        return (5, 2, 2), [*grid(0, 2, 2, t=5), (0, 4, -1, -1)]
    if media.endswith(":base"):
        return (1, 3, 3), [*grid(0, 3, 3), (0, 0, -1, -1)]
    if name.startswith("llava"):
        h, w = {"20x40": (3, 6), "60x10": (6, 1)}[media]
        return None, grid(0, 3, 3) + grid(1, h, w, newline=True)
    media, _, thin = media.partition(":")
    t, h, w = ([1, *map(int, media.split("x"))])[-3:]
    if thin:  # the processor left the first frame and every third token, from the second on, of the others
        return None, [c for i, c in enumerate(grid(0, h, w, t)) if i < h * w or i % (h * w) % 3 == 1]
    return (t, h, w), grid(0, h, w, t)


@pytest.mark.parametrize("name,kind", CASES)
@torch.no_grad()
def test_grids_coordinates_and_numbers(name, kind):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    prompts = [[m for m in prompt if isinstance(m, str)] for prompt in family.prompts[kind]]
    spy = Spy()
    with patch_model(model, spy, family.reader) as handle:
        model(**inputs)
        images = handle.report.images
    assert [i.row for i in images] == [r for r, row in enumerate(prompts) for _ in row]
    assert [i.ordinal for i in images] == [o for row in prompts for o in range(len(row))]
    for image, media in zip(images, sum(prompts, [])):
        wanted_grid, wanted = by_hand(name, media)
        assert image.grid == wanted_grid
        assert image.coords.tolist() == [list(c) for c in wanted]
        assert image.before == len(wanted)
        assert image.kind == ("video" if media == "video" or media.count("x") == 2 or ":frame" in media else "image")
    groups = spy.take()
    assert sum(g.shape[0] for g in groups) == len(images)
    shapes = {(i.kind, i.grid, tuple(map(tuple, i.coords.tolist()))) for i in images}
    assert len(groups) == len(shapes), "images of one shape are scored together"
    assert {(g.kind, g.grid, tuple(map(tuple, g.coords.tolist()))) for g in groups} == shapes
    numbers = sorted(int(o) for g in groups for o in g.ordinal)
    assert numbers == sorted(i.ordinal for i in images)


# -- matching placeholders with features ------------------------------------------------------------------------------

IMAGE, VIDEO = 5, 6
PLACES = {"image": IMAGE, "video": VIDEO}


def layout(rows: list[list[int]], images: list[int], videos: tuple[int, ...] | list[int] = ()):
    sources = [Features("image", [flat_shape(n) for n in images]), Features("video", [flat_shape(n) for n in videos])]
    return find_layout(torch.tensor(rows), [s for s in sources if s.shapes], PLACES, "cpu")


def test_adjacent_images_are_told_apart_by_their_lengths():
    found = layout([[1, IMAGE, IMAGE, IMAGE, IMAGE, IMAGE, 2], [IMAGE, 1, 1, 1, 1, 1, 1]], [2, 3, 1])
    assert [(s.row, s.ordinal, s.positions.tolist()) for s in found.segments] == [
        (0, 0, [1, 2]), (0, 1, [3, 4, 5]), (1, 0, [0]),
    ]  # fmt: skip
    assert found.visual.sum() == 6


def test_videos_and_images_are_numbered_in_the_order_of_the_prompt():
    row = [VIDEO, VIDEO, 1, IMAGE, 1, VIDEO, VIDEO, IMAGE]  # one video, cut up by a time stamp and an image
    found = layout([row], [1, 1], [4])
    assert [(s.kind, s.positions.tolist()) for s in found.segments] == [
        ("video", [0, 1, 5, 6]), ("image", [3]), ("image", [7]),
    ]  # fmt: skip
    assert [s.ordinal for s in found.segments] == [0, 1, 2]


def test_groups_hold_images_of_one_shape_and_kind():
    found = layout([[IMAGE] * 8 + [VIDEO] * 4], [4, 4], [4])
    assert [(g.kind, g.flat.tolist()) for g in found.groups] == [
        ("image", [[0, 1, 2, 3], [4, 5, 6, 7]]), ("video", [[8, 9, 10, 11]]),
    ]  # fmt: skip
    assert grid_shape(1, 2, 2) is flat_shape(4)


@pytest.mark.parametrize("rows,images,match", [
    ([[IMAGE, IMAGE, 1]], [3], "2 image placeholder tokens but features for 3"),
    ([[1, IMAGE], [IMAGE, 1]], [2], "two rows"),
])  # fmt: skip
def test_what_does_not_fit_is_an_error(rows, images, match):
    with pytest.raises(PatchError, match=match):
        layout(rows, images)


def test_numbers_go_on_where_the_last_turn_stopped():
    found = layout([[IMAGE, 1], [1, 1], [1, IMAGE], [1, 1]], [1, 1])
    found.number_after([2, 1])  # two prompts, two beams each
    assert [s.ordinal for s in found.segments] == [2, 1]
    assert found.images_seen == [3, 2, 2, 1]


def test_beams_repeat_the_images_of_a_prompt_as_one_group():
    sizes = (1, 2, 3)
    known = Features("image", [flat_shape(n) for n in sizes], {"saliency": [torch.full((n,), n) for n in sizes]})
    got = known.repeated(6, [3, 3, 3, 3])  # prompt 0 has the first two images, prompt 1 the third; two beams
    assert [s.n for s in got.shapes] == [1, 2, 1, 2, 3, 3]
    assert [len(x) for x in got.extras["saliency"]] == [1, 2, 1, 2, 3, 3]
