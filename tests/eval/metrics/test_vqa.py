"""VQA's normaliser and accuracy; the numbers are those of lmms-eval 0.7.3."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.errors import InputError
from tokenprune.eval.metrics import vqa, vqa_plain, vqav2
from tokenprune.eval.metrics.contractions import CONTRACTIONS


@pytest.mark.parametrize(("text", "expected"), [
    ("The Dog.", "dog"), ("two", "2"), ("2,000", "2000"), ("U.S.A", "usa"), ("3.5%", "3.5%"),
    ("yes, it is", "yes it is"), ("dont", "don't"), ("a red-brick wall", "red brick wall"), ("it's", "it 's"),
    ("None", "0"), ("$1,200.50", "$1200.50"), ("left/right", "left right"), ('"stop"', "stop"),
    ("", ""), ("Ten\tof\nthem", "10 of them"), ("eleven", "eleven"), ("couldntve", "couldn't've"),
    ("red -brick red-brick", "red brick redbrick"),  # one loose mark, and all its kind are deleted
    ("x-/y c-d", "x y c d"), ("x/-y c-d", "x y c d"),  # loose in the text as given, not as changed
])  # fmt: skip
def test_normaliser(text, expected):
    assert vqa_plain(text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("it's", "it's"), ("The Dog's", "dog's"), ("2,000", "2000"), ("left-1,000", "left1000"), ("what?", "what"),
    ("yes,no", "yes no"),
])  # fmt: skip
def test_vqav2_leaves_the_possessive(text, expected):
    assert vqa_plain(text, possessive=False) == expected


def test_the_oddities_that_scores_depend_on():
    assert vqa_plain("." * 40) == "." * 8
    assert vqa_plain("a.b v.2 3.") == "ab v.2 3"


@pytest.mark.parametrize(("k", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (5, 1)])
def test_accuracy_leaves_each_annotator_out_once(k, score):
    answers = ["cat"] * k + ["dog"] * (10 - k)
    assert vqa("Cat.", answers) == pytest.approx(score)
    assert vqav2("Cat.", answers) == pytest.approx(score)


def test_vizwiz():
    assert vqa("Unanswerable", ["unanswerable"] * 7 + ["blue"] * 3) == 1


def test_the_two_paths_differ_on_a_possessive():
    answers = ["it 's"] * 10
    assert vqa("it's", answers) == 1 and vqav2("it's", answers) == 0


@pytest.mark.parametrize("score", [vqa, vqav2])
def test_fewer_than_four_annotators_are_refused(score):
    assert score("cat", ["cat"] * 4) == 1
    with pytest.raises(InputError, match=rf"{score.__name__}.*at least 4, not 3"):
        score("cat", ["cat"] * 3)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["cat", "a cat", "dog", "two"]), min_size=4, max_size=12))
def test_accuracy_against_its_definition(answers):
    shares = []
    for i in range(len(answers)):
        others = answers[:i] + answers[i + 1 :]
        shares.append(min(1, sum(other in ("cat", "a cat") for other in others) / 3))
    assert vqa("the cat", answers) == pytest.approx(sum(shares) / len(shares))


def test_contractions_are_about_as_many_as_published_and_change_no_word():
    assert 110 <= len(set(CONTRACTIONS.values())) <= 130
    assert all(
        "'" in word and word.replace("'", "") == bare.replace("'", "") for bare, word in CONTRACTIONS.items()
    )
    words = {"its", "were", "well", "ill", "hell", "shell", "wed", "shed", "id", "lets", "whore"}
    assert not words & CONTRACTIONS.keys()
    assert not CONTRACTIONS.keys() & set(CONTRACTIONS.values())
