"""Edit distances, against a table filled by hand and, for ANLS, what lmms-eval 0.7.3 gave."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.errors import MissingExtraError
from tokenprune.eval.metrics import anls, cer, edit


def edits(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y)))
    return row[-1]


@pytest.fixture
def rapidfuzz():
    return pytest.importorskip("rapidfuzz")


@pytest.mark.usefixtures("rapidfuzz")
@pytest.mark.parametrize(("output", "answers", "score"), [
    ("paris", ["Paris"], 1), ("pariss", ["Paris"], 0.833333), ("0.82", ["0.28"], 0.5),
    ("New York", ["New York City"], 0.615385), ("The answer is 100", ["100"], 0),
    ("July 12 2001", ["July 12, 2001", "12 July 2001"], 0.923077),
    ("", ["x"], 0), ("", [""], 1), ("  New\nYORK ", ["new york"], 1),
    ("  abxd  ", ["abcd"], 0.875),  # lengths with their blanks: 1 - 1/8
])  # fmt: skip
def test_anls(output, answers, score):
    assert anls(output, answers) == pytest.approx(score, abs=5e-7)


@pytest.mark.usefixtures("rapidfuzz")
@pytest.mark.parametrize(("output", "answer", "by_answer", "by_longer"), [
    ("abcd", "abcd", 1, 1), ("abxd", "abcd", 0.75, 0.75), ("ab", "abcd", 0.5, 0.5), ("abcd", "ab", 0, 0.5),
    ("Abcd", "abcd", 0.75, 0.75), ("a\n b", "a b", 1, 1), ("", "ab", 0, 0), ("ab", "", 0, 0), ("", "", 1, 1),
    ("x" * 90, "ab", 0, 0),
])  # fmt: skip
def test_transcriptions(output, answer, by_answer, by_longer):
    assert cer(output, [answer]) == by_answer and edit(output, [answer]) == by_longer
    assert cer(output, ["zzzz", answer]) >= by_answer


words = st.text("abA", max_size=8)


@pytest.mark.usefixtures("rapidfuzz")
@settings(max_examples=150, deadline=None, derandomize=True)
@given(output=words, answers=st.lists(words, min_size=1, max_size=3))
def test_against_the_table(output, answers):
    similar = [1 - edits(output, a) / (max(len(output), len(a)) or 1) for a in answers]
    assert edit(output, answers) == pytest.approx(max(similar))
    folded = max(1 - edits(output.lower(), a.lower()) / (max(len(output), len(a)) or 1) for a in answers)
    assert anls(output, answers) == pytest.approx(folded if folded >= 0.5 else 0)
    if all(answers):
        best = max(1 - min(1, edits(output, a) / len(a)) for a in answers)
        assert cer(output, answers) == pytest.approx(best)


@pytest.mark.parametrize("score", [anls, cer, edit])
def test_without_rapidfuzz_the_extra_is_named(score, monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    with pytest.raises(MissingExtraError, match=r"rapidfuzz.*tokenprune-vlm\[eval\]"):
        score("a", ["a"])
