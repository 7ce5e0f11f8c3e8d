"""Metrics by name, and what every one of them owes its caller."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.errors import InputError, TokenPruneError, UnknownNameError
from tokenprune.eval.metrics import exact, get_metric, list_metrics, metric
from tokenprune.eval.metrics import registry as rooms

NAMES = "anls cer contains edit exact gqa letter relaxed vqa vqav2 yesno".split()
NEEDS_RAPIDFUZZ = {"anls", "cer", "edit"}


def load(name):
    if name in NEEDS_RAPIDFUZZ:
        pytest.importorskip("rapidfuzz")
    return get_metric(name)


def test_the_metrics_there_are():
    assert list_metrics() == NAMES
    assert get_metric("exact") is exact and exact.__name__ == "exact"


def test_an_unknown_name_lists_its_neighbours():
    with pytest.raises(UnknownNameError, match="no metric is named 'vqa2'; did you mean vqav2"):
        get_metric("vqa2")


def test_a_name_is_taken_once(monkeypatch):
    monkeypatch.setattr(rooms, "_METRICS", dict(rooms._METRICS))
    with pytest.raises(TokenPruneError, match="'exact' is already registered"):
        metric("exact")(lambda output, answers: 1.0)
    half = metric("half")(lambda output, answers: 0.5)
    assert get_metric("half") is half and half("a", ["b"]) == 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("answers", [[], "yes", None, [None], [1]])
def test_answers_must_be_a_list_of_texts(name, answers):
    with pytest.raises(InputError, match=f"metric {name!r} takes a list"):
        get_metric(name)("yes", answers)


@pytest.mark.parametrize("name", NAMES)
def test_an_output_must_be_a_text(name):
    with pytest.raises(InputError, match="scores a text, not None"):
        get_metric(name)(None, ["yes"])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(output=st.text(max_size=20), answers=st.lists(st.text(max_size=20), min_size=4, max_size=6))
def test_a_score_lies_between_0_and_1_and_does_not_depend_on_the_order(name, output, answers):
    score = load(name)
    if name == "letter":
        answers = ["A", "B", "C", "D"]
    found = score(output, answers)
    assert type(found) is float and 0 <= found <= 1
    assert found == pytest.approx(score(output, answers[::-1]))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.text(max_size=20).filter(str.strip))
def test_the_answer_itself_is_right(name, text):
    if name == "letter":
        text = "C"
    assert load(name)(text, [text] * 4) == 1
