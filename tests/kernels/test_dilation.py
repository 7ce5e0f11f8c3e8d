"""Spreading over grids, against a statement of the rule in plain Python on pages built token by token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.kernels.dilation import reach, spread
from tokenprune.tokens import NEWLINE


def page(images):
    """[(parts, frames, h, w, newlines)] -> coordinates as the hooks give them, and (sheet, y, x) of each token."""
    coords, seen, part = [], [], 0
    for image, (parts, frames, h, w, newlines) in enumerate(images):
        for _ in range(parts):
            for t in range(frames):
                for y in range(h):
                    for x in range(w):
                        coords.append((part, t, y, x))
                        seen.append(((image, part, t), y, x))
                    if newlines:
                        coords.append((part, t, NEWLINE, NEWLINE))
                        seen.append(((image, part, t), y, w))
            part += 1
    return coords, seen


def near(seen, chosen, radius):
    """Indices that a set of indices spreads to."""
    out = set()
    for j in chosen:
        sheet, y, x = seen[j]
        for i, (other, v, u) in enumerate(seen):
            if other != sheet:
                continue
            if abs(v - y) <= radius and abs(u - x) <= radius:
                out.add(i)
            if u == 0 and 1 <= v - y <= radius:
                out.add(i)
    return out


def batch(rows):
    """Pages of a batch, filled up behind their own tokens."""
    most = max(len(r) for r in rows)
    return torch.tensor([r + [(NEWLINE,) * 4] * (most - len(r)) for r in rows])


IMAGES = st.lists(
    st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 5), st.integers(1, 6), st.booleans()),
    min_size=1, max_size=3,
)  # fmt: skip


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(IMAGES, min_size=1, max_size=3), st.integers(1, 3), st.data())
def test_spreads_as_the_rule_says(rows, radius, data):
    pages = [page(images) for images in rows]
    coords = batch([c for c, _ in pages])
    table = reach(coords, radius)
    assert table.shape == (*coords.shape[:2], (2 * radius + 1) ** 2 + radius) and table.dtype == torch.int32
    picks = [data.draw(st.sets(st.integers(0, len(seen) - 1), max_size=4)) for _, seen in pages]
    chosen = torch.zeros(coords.shape[:2], dtype=torch.bool)
    for row, pick in enumerate(picks):
        chosen[row, list(pick)] = True
    out = spread(chosen, table, max(1, *(len(p) for p in picks)))
    for row, (_, seen) in enumerate(pages):
        assert set(out[row].nonzero().flatten().tolist()) == near(seen, picks[row], radius)


def test_a_page_by_hand():
    """Two pictures of 3 x 4: from the middle of the first, one step around and the next line's start."""
    coords, _ = page([(1, 1, 3, 4, False), (1, 1, 3, 4, False)])
    chosen = torch.zeros(1, 24, dtype=torch.bool)
    chosen[0, 6] = True  # line 1, column 2
    out = spread(chosen, reach(torch.tensor([coords]), 1), 1)
    assert out.nonzero()[:, 1].tolist() == [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    chosen[0, 6], chosen[0, 11] = (
        False,
        True,
    )  # the first picture's last token does not lead into the second one
    assert spread(chosen, reach(torch.tensor([coords]), 1), 1).nonzero()[:, 1].tolist() == [6, 7, 10, 11]


def test_a_thumbnail_behind_its_tiles():
    """Part 0 comes last in some families: the order of the parts in the prompt says nothing."""
    coords, seen = page([(2, 1, 2, 2, True)])
    swapped = coords[6:] + coords[:6]
    chosen = torch.zeros(1, 12, dtype=torch.bool)
    chosen[0, 0] = True
    out = spread(chosen, reach(torch.tensor([swapped]), 1), 1)
    assert out.nonzero()[:, 1].tolist() == sorted(near(seen[6:] + seen[:6], {0}, 1))


@pytest.mark.parametrize("radius", [1, 2, 7])
def test_the_whole_page_is_the_limit(radius):
    coords, _ = page([(1, 1, 2, 3, False)])
    table = reach(torch.tensor([coords]), radius)
    assert int(table.max()) == 5 and int(table.min()) == -1
    assert spread(torch.ones(1, 6, dtype=torch.bool), table, 6).all()
    assert not spread(torch.zeros(1, 6, dtype=torch.bool), table, 6).any()
