"""Strips of clips: which frames make a step, how many tokens of each were kept, and bars that are as high as that."""

import numpy as np
import pytest
import torch
from PIL import Image

from tokenprune.tokens import ImageReport
from tokenprune.viz import Kept, Reel, clip_sheet, kept_by_step, palette, steps_of
from tokenprune.viz import strip as module


def clip_report(kept, steps=4, rows=2, cols=3, newline=False):
    coords = [(0, t, y, x) for t in range(steps) for y in range(rows) for x in range(cols)]
    coords += [(0, steps - 1, -1, -1)] * newline
    return ImageReport(
        0, 0, "video", (steps, rows, cols), len(coords), len(kept), list(kept), torch.tensor(coords)
    )


def test_counts_of_steps():
    assert kept_by_step(clip_report([0, 1, 6, 18, 19, 20])) == [2, 1, 0, 3]
    assert kept_by_step(clip_report([])) == [0, 0, 0, 0]
    assert kept_by_step(clip_report([0, 24], newline=True)) == [1, 0, 0, 1]  # the newline ends the last step
    ragged = clip_report([0, 23])
    ragged.grid = None
    assert kept_by_step(ragged) == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("frames", "steps", "expected"),
    [
        (8, 4, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (5, 3, [[0, 1], [2, 3], [4]]),
        (3, 3, [[0], [1], [2]]),
        (1, 1, [[0]]),
        (1, 2, [[0], [0]]),  # a frame that was doubled
    ],
)
def test_frames_of_steps(frames, steps, expected):
    assert steps_of(range(frames), steps) == expected


def test_a_clip_seen_as_several_images():
    row = Kept("evs", "keep 50%", [clip_report([0, 1], steps=1), clip_report([0, 6, 7], steps=2)])
    assert row.counts == [2, 1, 2]
    assert [row.at(step)[1] for step in range(3)] == [0, 0, 1] and row.at(2)[0] is row.reports[1]
    with pytest.raises(IndexError):
        row.at(3)


def bars(sheet):
    """Heights of the amber bars of a page, left to right. Outlines of cells are amber too, but thin."""
    amber = (np.asarray(sheet) == palette.EDGE).all(-1)
    heights, inside = [], False
    for column in amber.T:
        run = longest = 0
        for here in column:
            run = run + 1 if here else 0
            longest = max(longest, run)
        if longest and inside:
            heights[-1] = max(heights[-1], longest)
        elif longest:
            heights.append(longest)
        inside = bool(longest)
    return heights


def reel(kept, steps=4, each=1, answer=""):
    frames = [[Image.new("RGB", (60, 40), (240, 240, 250))] * each for _ in range(steps)]
    row = Kept("evs", "keep 50%", [clip_report(kept, steps)], answer, True if answer else None)
    return Reel(
        frames, [f"{t}.0 s" for t in range(steps)], [row], "clip.mp4: What happens?", [("blind", "no", False)]
    )


def test_bars_are_as_high_as_the_counts(monkeypatch):
    monkeypatch.setattr(module, "overlay", lambda image, report, *, side, **_: module.fit(image, side))
    full = module.BAR * module.SCALE
    # An even share of 2.25 crosses bars as a thin line, and splits what is above it from what is below.
    heights = bars(clip_sheet([reel([0, 6, 7, 8, 9, 10, 11, 12, 13])]))
    assert len(heights) == 3  # of the last step nothing is left
    line = full * 2.25 / 6
    assert heights[0] == pytest.approx(full / 6, abs=3)
    assert heights[1] == pytest.approx(max(line, full - line), abs=3)
    assert heights[2] == pytest.approx(full * 2 / 6, abs=3)


def test_pages_grow_with_what_they_hold(monkeypatch):
    one = clip_sheet([reel([0, 7])], title="A clip", caption="bars")
    assert clip_sheet([reel([0, 7], each=2)], title="A clip", caption="bars").height > one.height
    assert clip_sheet([reel([0, 7], answer="red")] * 2).height > clip_sheet([reel([0, 7])]).height
    monkeypatch.setattr(module, "LINE", 2)
    lines = clip_sheet([reel([0, 7])], title="A clip", caption="bars")
    assert lines.height > 1.4 * one.height  # it goes on below


def test_kept_patches_are_lit_in_their_own_frame():
    sheet = clip_sheet([reel([0, 6 + 5])])
    bright = (np.asarray(sheet) == (240, 240, 250)).all(-1)
    rows = bright[bright.shape[0] // 2 :]  # below the clip itself
    cells = np.flatnonzero(rows.any(0))
    groups = np.split(cells, np.flatnonzero(np.diff(cells) > 20) + 1)
    assert len(groups) == 2  # one cell in the first frame, one in the second
    assert rows[:, groups[0]].any(1).nonzero()[0].max() < rows[:, groups[1]].any(1).nonzero()[0].min()
