"""Broken outputs are flagged, sound ones are not."""

from __future__ import annotations

import pytest

from tokenprune.errors import InputError
from tokenprune.eval.degenerate import degenerate, degenerate_rates


@pytest.mark.parametrize(("output", "hit", "flags"), [
    ("a cat", False, set()), ("", False, {"empty"}), (" \n", False, {"empty"}), ("a cat", True, {"unfinished"}),
    ("a \ufffd cat", False, {"replacement"}),
    ("x " * 10, False, set()), ("x " * 11, False, {"repeats"}), ("look: " + "x " * 11, False, {"repeats"}),
    ("x " * 11 + "and so on", False, set()),
    ("one two three four five " * 10, False, set()), ("one two three four five " * 11, False, {"repeats"}),
    ("one two three four five six " * 11, False, set()),
    ("a b " * 11 + "a", False, {"repeats"}),  # cut between two words of the phrase
    ("hello " * 11 + "hel", True, {"repeats", "unfinished"}), ("hello " * 11 + "hel", False, set()),
    ("-" * 30, False, set()), ("-" * 31, False, {"repeats"}), ("ab" + "\n" * 31 + "c", False, {"repeats"}),
    ("", True, {"empty", "unfinished"}), ("啊" * 40 + "\ufffd", True, {"repeats", "unfinished", "replacement"}),
])  # fmt: skip
def test_flags(output, hit, flags):
    assert degenerate(output, hit) == flags


def test_rates():
    rates = degenerate_rates(["", "a cat", "x " * 20, "a dog"], [True, False, True, False])
    assert rates == {"empty": 0.25, "repeats": 0.25, "unfinished": 0.5, "replacement": 0, "any": 0.5}
    for outputs, hits in (([], []), (["a"], [])):
        with pytest.raises(InputError, match="one entry per sample"):
            degenerate_rates(outputs, hits)
