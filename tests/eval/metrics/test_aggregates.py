"""POPE and MME; the numbers are those of lmms-eval 0.7.3, POPE's yes ratio excepted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.errors import InputError, UnknownNameError
from tokenprune.eval.metrics import mme, mme_images, mme_label, mme_scores, pope, pope_codes, pope_scores

OUTPUTS = ["Yes", "yes", "No", "Yes.", "No, there is not", "yes", "no", "no"]
ANSWERS = ["yes", "no", "no", "yes", "no", "yes", "yes", "no"]


def test_pope():
    expected = {"accuracy": 0.5, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "yes_ratio": 3 / 8}
    assert pope(OUTPUTS, ANSWERS) == pytest.approx(expected)


def test_pope_without_cases_is_0_and_not_an_error():
    none = {"accuracy": 0, "precision": 0, "recall": 0, "f1": 0, "yes_ratio": 0}
    assert pope(["maybe"], ["yes"]) == none
    assert pope(["no"], ["no"]) == none | {"accuracy": 1}


def test_pope_refuses_what_it_cannot_score():
    with pytest.raises(InputError, match="'outputs': 1, 'answers': 2"):
        pope(["yes"], ["yes", "no"])
    with pytest.raises(InputError, match="at least one"):
        pope([], [])
    with pytest.raises(InputError, match="answer 1 of POPE is neither"):
        pope(["yes", "yes"], ["yes", "Yes."])


answer = st.sampled_from(["yes", "no"])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from(["Yes", "no ", "maybe"]), answer), min_size=1, max_size=20), st.data()
)
def test_pope_of_a_selection_is_pope_of_the_selected(pairs, data):
    outputs, answers = zip(*pairs)
    rows = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=30))
    chosen = pope_scores(pope_codes(outputs)[rows], pope_codes(answers)[rows])
    assert chosen == pope([outputs[r] for r in rows], [answers[r] for r in rows])
    if chosen["precision"] and chosen["recall"]:
        harmonic = 2 / (1 / chosen["precision"] + 1 / chosen["recall"])
        assert chosen["f1"] == pytest.approx(harmonic)


@pytest.mark.parametrize(("text", "label"), [
    ("Yes", "yes"), ("yes.", "yes"), ("y", "yes"), ("N", "no"), ("The answer is yes", "other"), ("I know yes", "other"),
    ("No, it is not", "no"), ("Yes, there is", "yes"), ("", "other"), ("not", "no"), (" N. ", "no"),
])  # fmt: skip
def test_mme_label(text, label):
    assert mme_label(text) == label


ROWS = [  # output, answer, image, category
    ("Yes", "Yes", "a.jpg", "existence"),
    ("No", "No", "a.jpg", "existence"),
    ("Yes", "Yes", "b.jpg", "existence"),
    ("Yes", "No", "b.jpg", "existence"),
    ("No", "Yes", "c.jpg", "count"),
    ("The answer is no", "No", "c.jpg", "count"),
    ("yes.", "Yes", "d.jpg", "commonsense_reasoning"),
    ("no", "No", "d.jpg", "commonsense_reasoning"),
]


def test_mme():
    assert mme(*zip(*ROWS)) == {
        "existence": 125,
        "count": 0,
        "commonsense_reasoning": 200,
        "perception": 125,
        "cognition": 200,
    }
    assert mme(*zip(*ROWS[::-1])) == mme(*zip(*ROWS))


def test_mme_image_by_image_for_a_bootstrap():
    categories, scores = mme_images(*zip(*ROWS))
    assert categories == ["existence", "existence", "count", "commonsense_reasoning"]
    assert scores.tolist() == [200, 50, 0, 200]
    rows = np.array([1, 1, 2])
    assert mme_scores(np.array(categories)[rows], scores[rows]) == {
        "existence": 50,
        "count": 0,
        "perception": 50,
    }


def test_one_image_in_two_categories_is_two_images():
    rows = [(o, a, "a.jpg", c) for o, a, _, c in ROWS[:2] + ROWS[6:]]
    assert mme(*zip(*rows))["existence"] == 200


def test_mme_refuses_what_it_cannot_score():
    with pytest.raises(
        InputError, match=r"'b.jpg' of MME's existence has 1 questions, not 2; limit MME by image"
    ):
        mme(*zip(*ROWS[:3]))
    with pytest.raises(UnknownNameError, match="no category 'ocr'"):
        mme(["yes"] * 2, ["yes"] * 2, ["a"] * 2, ["ocr"] * 2)
    with pytest.raises(InputError, match="neither yes nor no"):
        mme(["yes"], ["maybe"], ["a"], ["OCR"])
    with pytest.raises(InputError, match="one entry per question"):
        mme(["yes"], ["yes"], ["a"], [])
