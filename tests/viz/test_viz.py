"""Drawings: which pixels change, that nothing outside the grid does, and that odd reports are survived."""

import numpy as np
import pytest
import torch
from PIL import Image

from tokenprune.errors import InputError
from tokenprune.tokens import ImageReport
from tokenprune.viz import Cell, SheetRow, contact_sheet, overlay, titled
from tokenprune.viz.cells import ABSENT, DROPPED, KEPT, MERGED, cells_of
from tokenprune.viz.lettering import shorten, width, wrap
from tokenprune.viz.palette import cluster_tints, ranks


def report(kept, rows=4, cols=4, *, newlines=False, owner=None, scores=None, parts=1):
    coords = []
    for part in range(parts):
        for y in range(rows):
            coords += [(part, 0, y, x) for x in range(cols)]
            coords += [(-1, -1, -1, -1)] * newlines
    n = len(coords)
    return ImageReport(
        row=0,
        ordinal=0,
        kind="image",
        grid=(1, rows, cols),
        before=n,
        after=len(kept),
        kept=list(kept),
        coords=torch.tensor(coords),
        scores=None if scores is None else torch.as_tensor(scores, dtype=torch.float32),
        owner=None if owner is None else torch.tensor(owner),
    )


@pytest.fixture
def picture():
    return Image.new("RGB", (64, 64), (200, 40, 90))


def centre_colour(image, y, x, cells=4):
    step = image.width // cells
    return image.getpixel((x * step + step // 2, y * step + step // 2))


def test_kept_stay_and_dropped_are_dimmed(picture):
    drawn = overlay(picture, report([5, 10]), side=256)
    assert drawn.size == (256, 256)
    for y in range(4):
        for x in range(4):
            same = centre_colour(drawn, y, x) == (200, 40, 90)
            assert same == (y * 4 + x in (5, 10))


@pytest.mark.parametrize("level", [8, 128, 250])
def test_kept_and_dropped_are_apart_in_any_picture(level):
    drawn = overlay(Image.new("RGB", (64, 64), (level,) * 3), report([5]), side=256)
    assert abs(centre_colour(drawn, 1, 1)[0] - centre_colour(drawn, 2, 2)[0]) > 70


def test_newlines_are_skipped():
    cells = cells_of(report([0, 5], newlines=True))  # token 5 is the first of the second row
    assert cells.state.tolist() == [[KEPT, 1, 1, 1], [KEPT, 1, 1, 1], [1] * 4, [1] * 4]


def test_several_parts_are_drawn_by_the_base_view():
    cells = cells_of(report([3, 16 + 2], parts=2))
    assert (cells.state == KEPT).sum() == 1 and cells.state[0, 3] == KEPT
    assert cells_of(report([3, 16 + 2], parts=2), part=1).state[0, 2] == KEPT
    with pytest.raises(InputError, match="no tokens in part 7"):
        cells_of(report([1]), part=7)


def test_merged_cells_are_tinted_by_owner(picture):
    owner = [0, 0, 2, 3, 0, 0, -1, -1] + [-1] * 8
    cells = cells_of(report([0, 2, 3], owner=owner))
    assert cells.state[:2].tolist() == [[MERGED, MERGED, KEPT, KEPT], [MERGED, MERGED, DROPPED, DROPPED]]
    assert cells.centre.sum() == 3
    drawn = overlay(picture, report([0, 2, 3], owner=owner), side=256)
    one, other, kept = (centre_colour(drawn, *at) for at in ((0, 1), (1, 1), (0, 2)))
    assert one == other != kept == (200, 40, 90)


def test_touching_clusters_differ_in_colour():
    cluster = np.arange(64).reshape(8, 8)
    tint = cluster_tints(cluster)
    for y in range(7):
        for x in range(7):
            four = [tint[int(c)] for c in (cluster[y : y + 2, x : x + 2]).ravel()]
            assert len(set(four)) == 4


def test_holes_in_the_grid_are_absent():
    ragged = report([0], rows=2, cols=2)
    ragged.coords = ragged.coords[[0, 1, 3]]
    ragged.before = 3
    assert cells_of(ragged).state[1, 0] == ABSENT
    overlay(Image.new("RGB", (9, 9)), ragged)


def test_heat_map_orders_by_rank(picture):
    scores = np.exp(np.arange(16.0) * 3)
    drawn = np.asarray(overlay(picture, report([15], scores=scores), side=256, heat=True), dtype=float)
    light = drawn.sum(-1).reshape(4, 64, 4, 64).mean((1, 3)).ravel()
    assert (np.diff(light) > 0).all()
    with pytest.raises(InputError, match="no scores"):
        overlay(picture, report([1]), heat=True)


def test_ranks():
    out = ranks(np.array([[5.0, np.nan], [5.0, 9.0]]))
    assert np.isnan(out[0, 1]) and out[0, 0] == out[1, 0] < out[1, 1] <= 1
    assert ranks(np.array([2.0, 2.0])).tolist() == [0.5, 0.5]


def test_box_limits_the_grid(picture):
    drawn = overlay(picture, report(range(16)), side=200, box=(0.25, 0.0, 0.75, 1.0))
    assert drawn.getpixel((100, 100)) == (200, 40, 90) and drawn.getpixel((10, 100)) != (200, 40, 90)


@pytest.mark.parametrize("size", [(300, 20), (3, 500), (1, 1)])
def test_odd_pictures(size):
    drawn = overlay(Image.new("RGB", size), report([1, 2], owner=[1] * 4 + [2] * 4 + [-1] * 8), side=120)
    assert max(drawn.size) == 120


def test_reports_without_coordinates_say_so(picture):
    blank = report([0])
    blank.coords = torch.full_like(blank.coords, -1)
    with pytest.raises(InputError, match="no coordinates"):
        overlay(picture, blank)


def test_pages_have_the_size_of_their_contents(picture):
    one = titled(
        picture,
        report([1]),
        method="uniform",
        keep="keep 6%",
        answer="rot 中",
        good=False,
        question="What?" * 40,
    )
    assert one.width == 896 and one.height > 896
    wide = Image.new("RGB", (90, 30), "white")
    cells = [
        Cell(report([1]), "red", True),
        None,
        Cell(report([1], scores=np.arange(16)), "", None, heat=True),
    ]
    rows = [SheetRow(p, "Which?", cells, [("expected", "red", None)]) for p in (picture, wide)]
    columns = [("uniform", "keep 25%"), ("uniform", "keep 6%"), ("flashvlm", "scores")]
    page = contact_sheet(rows, columns, title="A title", caption="A caption")
    marked = SheetRow(picture, "Which?", cells, [("expected", "red", None)], marks=[(10, 10, 20, 20)])
    assert contact_sheet([marked], columns).tobytes() != contact_sheet(rows[:1], columns).tobytes()
    assert page.width > 4 * 300 and len(page.getcolors(1 << 20)) > 10
    assert contact_sheet(rows[:1], columns).height < page.height


def test_text_fits_its_room():
    assert shorten("short", 12, 400) == "short"
    cut = shorten("a sentence that will never fit", 12, 60)
    assert cut.endswith("...") and width(cut, 12) <= 60
    lines = wrap("one two three four five six seven eight nine ten", 12, 60, 3)
    assert len(lines) == 3 and all(width(line, 12) <= 60 for line in lines)
    assert width("196 → 49 ✓", 12) > width("196 49", 12)
