"""Decode steps out of a report: whose tokens were chosen, what was being written, and which cells that lights."""

import pytest
import torch

from tokenprune.errors import InputError
from tokenprune.tokens import FixationReport, ImageReport, PruneReport
from tokenprune.viz import Look, lit, looks_of
from tokenprune.viz.looks import evenly


def image(rows, cols, row=0, ordinal=0):
    coords = torch.tensor([(0, 0, y, x) for y in range(rows) for x in range(cols)])
    n = rows * cols
    return ImageReport(row, ordinal, "image", (1, rows, cols), n, n, list(range(n)), coords)


def report(images, choices, visual):
    steps = 1 + max((step for step, _, _ in choices), default=-1)
    fixation = FixationReport(steps, sorted({layer for _, layer, _ in choices}), visual, choices, 0.5, 0.7)
    return PruneReport(images, 100, [100], 1.0, 1.0, 1.0, 1, 1, fixation)


def test_indices_run_over_all_images_of_a_row():
    images = [image(2, 3), image(1, 4, ordinal=1), image(2, 2, row=1)]
    choices = [(0, 5, [[0, 5, 6, 9], [3]]), (0, 7, [[8], [0, 1]]), (1, 5, [[], [2]])]
    found = report(images, choices, [10, 4])
    assert [look.chosen for look in looks_of(found)] == [
        {5: [[0, 5], [0, 3]], 7: [[], [2]]},
        {5: [[], []]},
    ]
    assert [look.chosen for look in looks_of(found, row=1)] == [{5: [[3]], 7: [[0, 1]]}, {5: [[2]]}]


def test_images_of_earlier_turns_are_left_out():
    found = report(
        [image(2, 2)], [(0, 1, [[0, 5, 6, 9]])], [10]
    )  # six tokens of an earlier picture come first
    (look,) = looks_of(found)
    assert look.chosen == {1: [[0, 3]]}
    with pytest.raises(InputError, match="4 visual tokens"):
        looks_of(report([image(2, 2)], [(0, 1, [[0]])], [3]))


def test_the_first_token_comes_from_the_prefill():
    choices = [(step, 1, [[step]]) for step in range(3)]
    looks = looks_of(report([image(2, 2)], choices, [4]), ["The", "The red", "The red one"])
    assert [(look.before, look.after, look.piece, look.ends) for look in looks] == [
        ("The", "The red", " red", False),
        ("The red", "The red one", " one", False),
        ("The red one", "The red one", "", True),
    ]


def test_a_text_that_is_rewritten_marks_what_differs():
    assert Look(0, {}, "caf\ufffd", "café").piece == "é"


def test_nothing_looked_at_is_nothing_to_draw():
    found = report([image(2, 2)], [], [4])
    assert looks_of(found) == []
    found.fixation = None
    assert looks_of(found, ["The"]) == []


def test_lit_cells():
    cells = lit(image(3, 4), [1, 6, 11])
    assert cells.tolist() == [
        [False, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]


def test_evenly_takes_the_ends():
    assert evenly(range(5), 8) == [0, 1, 2, 3, 4]
    assert evenly(range(100), 4) == [0, 33, 66, 99]
    assert evenly(range(9), 1) == [8] and evenly([], 3) == []
    for count in range(1, 40):
        picked = evenly(range(count), 8)
        assert picked == sorted(set(picked)) and len(picked) == min(count, 8)
        assert picked[0] == 0 and picked[-1] == count - 1
