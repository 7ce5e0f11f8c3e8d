"""Short answers; the numbers are those lmms-eval 0.7.3 gave for the same pairs, where it has the metric."""

from __future__ import annotations

import pytest

from tokenprune.errors import InputError
from tokenprune.eval.metrics import contains, exact, gqa, letter, plain, relaxed, yesno


@pytest.mark.parametrize(("output", "answer", "score"), [
    ("Yes.", "yes", 1), (" New   York\n", "new york", 1), ('"STOP!"', "stop", 1), ("3.5", "3.5", 1),
    ("t-shirt", "tshirt", 0), ("The left", "left", 0), ("STRASSE", "straße", 1), ("", "no", 0),
    ("", "?", 0), ("?", "?", 1), ("?", "!", 0), ("...", "", 0), ("", "", 1), ("it's", "its", 0), ("don't", "don't", 1),
])  # fmt: skip
def test_exact(output, answer, score):
    assert exact(output, [answer]) == score
    assert exact(output, ["another one", answer]) == score


@pytest.mark.parametrize(("text", "expected"), [
    ("  A  Dog. ", "a dog"), ("'yes'", "yes"), ("U.S.A.", "u.s.a"), ("- 5", "- 5"), ("?!", "?!"), ("", ""),
    (". a .", "a"),
])  # fmt: skip
def test_plain(text, expected):
    assert plain(text) == expected and plain(expected) == expected


@pytest.mark.parametrize(("output", "answer", "score"), [
    ("Yes.", "yes", 1), ("The left", "left", 0), ("t-shirt", "tshirt", 1), ("two  dogs", "two dogs", 0),
])  # fmt: skip
def test_gqa(output, answer, score):
    assert gqa(output, [answer]) == score


@pytest.mark.parametrize(("output", "answer", "score"), [
    ("The sign says stop.", "STOP", 1), ("It is 2012", "12", 1), ("ab", "a b", 0), ("a b", "A\nB", 1),
    ("stop", "the stop", 0), ("anything", "", 0), ("", "", 0),
])  # fmt: skip
def test_contains(output, answer, score):
    assert contains(output, [answer]) == contains(output, ["zebra", answer]) == score


@pytest.mark.parametrize(("output", "answer", "score"), [
    ("104", "100", 1), ("105", "100", 1), ("105.1", "100", 0), ("95", "100", 1), ("42%", "0.42", 1), ("42", "42%", 0),
    ("0.0", "0", 0), ("0", "0", 1), ("2019", "2020", 1), ("14 ", "14", 1),
    ("-104", "-100", 1), ("104", "-100", 0), ("Blue", "blue", 1), ("blue.", "blue", 0), ("1,000", "1000", 0),
    ("$5", "5", 0), ("inf", "inf", 1), ("nan", "5", 0), ("five", "5", 0), ("%", "%", 1), ("", "5", 0),
])  # fmt: skip
def test_relaxed(output, answer, score):
    assert relaxed(output, [answer]) == score
    assert relaxed(output, ["zebra", answer]) == score


@pytest.mark.parametrize(("output", "score"), [
    ("B", 1), ("b", 1), ("B.", 1), ("B. y", 1), ("b. y", 0), ("(B)", 0), ("The answer is B", 0), (" B\n", 1),
    ("A", 0), ("BB", 0), ("", 0), (".", 0),
])  # fmt: skip
def test_letter(output, score):
    assert letter(output, ["B"]) == letter(output, ["b"]) == score


def test_letter_takes_letters_only():
    assert letter("C", ["B", "C"]) == 1
    for answer in ("B.", "cat", "2", ""):
        with pytest.raises(InputError, match="answers of one letter"):
            letter("B", ["B", answer])


@pytest.mark.parametrize(("output", "answer", "score"), [
    ("Yes", "yes", 1), (" no\n", "No", 1), ("yes", "no", 0), ("Yes.", "yes", 0),
    ("No, there is not", "no", 0), ("", "no", 0),
])  # fmt: skip
def test_yesno(output, answer, score):
    assert yesno(output, [answer]) == score
