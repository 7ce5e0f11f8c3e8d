"""Both scorers of every benchmark; the numbers of `lmms` are those that lmms-eval 0.7.3's own functions gave."""

from __future__ import annotations

import numpy as np
import pytest

from tokenprune.errors import UnknownNameError
from tokenprune.eval.benchmarks import (
    ai2d,
    chartqa,
    docvqa,
    egoschema,
    get_scorer,
    gqa,
    letters,
    list_benchmarks,
    longvideobench,
    mmbench,
    mme,
    mvbench,
    ocrbench,
    pope,
    refcoco,
    scienceqa,
    textvqa,
    videomme,
    vqav2,
)  # fmt: skip
from tokenprune.eval.benchmarks.scoring import drawn

ANIMALS = {"A": "a cat", "B": "a dog", "C": "two birds", "D": "none"}


def test_every_benchmark_has_two_scorers():
    for name in list_benchmarks():
        assert callable(get_scorer(f"{name}.lmms").each) and callable(get_scorer(f"{name}.strict").each)
    assert get_scorer("exact").each("Yes.", ["yes"], {}) == 1
    with pytest.raises(UnknownNameError, match=r"two scorers: pope\.lmms and pope\.strict"):
        get_scorer("pope")
    with pytest.raises(UnknownNameError, match=r"did you mean .*pope\.lmms"):
        get_scorer("pope.lms")


@pytest.mark.parametrize(("output", "answer", "ours", "fixed"), [
    ("Yes.", "yes", 1, 1), ("The left", "left", 0, 0), ("t-shirt", "tshirt", 1, 1), ("", "?", 1, 0),
])  # fmt: skip
def test_gqa(output, answer, ours, fixed):
    assert gqa.lmms(output, [answer]) == ours and gqa.strict(output, [answer]) == fixed


@pytest.mark.parametrize(("k", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (5, 1)])
def test_vqa_accuracy(k, score):
    answers = ["cat"] * k + ["dog"] * (10 - k)
    for one in (textvqa.lmms, textvqa.strict, vqav2.lmms, vqav2.strict):
        assert one("Cat.", answers) == pytest.approx(score)


def test_vqa_possessives_and_nothing():
    assert textvqa.lmms("it's", ["it 's"] * 10) == 1 and vqav2.lmms("it's", ["it 's"] * 10) == 0
    for module in (textvqa, vqav2):
        assert module.lmms("", ["a"] * 10) == 1, "an article is dropped, so that nothing answers it"
        assert module.strict("", ["a"] * 10) == 0 and module.strict("A.", ["a"] * 10) == 1


PAIRS = [("Yes", "yes"), ("yes", "no"), ("No", "no"), ("Yes.", "yes"), ("No, there is not", "no"), ("yes", "yes"),
         ("no", "yes"), ("no", "no")]  # fmt: skip


def test_pope():
    outputs, answers = [o for o, _ in PAIRS], [[a] for _, a in PAIRS]
    facts = [{"kind": "random"}] * 4 + [{"kind": "popular"}] * 4
    found = pope.lmms_totals(outputs, answers, facts)(np.arange(8))
    assert found["accuracy"] == 0.5 and found["yes_ratio"] == 3 / 8 and found["unparsed"] == 2 / 8
    for name in ("precision", "recall", "f1"):
        assert found[name] == pytest.approx(2 / 3)
    # random: tp 1, fp 1; popular: tp 1, fn 1
    assert found["f1, random"] == pytest.approx(2 / 3) and found["f1, popular"] == pytest.approx(2 / 3)
    assert found["accuracy, mean of kinds"] == 0.5
    fixed = pope.strict_totals(outputs, answers, facts)(np.arange(8))
    assert (fixed["accuracy"], fixed["yes_ratio"], fixed["unparsed"]) == (0.75, 0.5, 0)
    assert [pope.lmms(o, a) for o, a in zip(outputs, answers)] == [1, 0, 1, 0, 0, 1, 0, 1]
    assert [pope.strict(o, a) for o, a in zip(outputs, answers)] == [1, 0, 1, 1, 1, 1, 0, 1]
    assert pope.strict("", ["no"]) == pope.lmms("", ["no"]) == 0


def test_mme():
    assert [mme.lmms(text, ["Yes"]) for text in ("Yes", "yes.", "y", "The answer is yes", "I know yes")] == [
        1,
        1,
        1,
        0,
        0,
    ]
    assert (
        mme.lmms("N", ["No"]) == 1 and mme.lmms("nobody", ["No"]) == 1 and mme.strict("nobody", ["No"]) == 0
    )
    rows = [("existence", "a"), ("existence", "b"), ("count", "c"), ("commonsense_reasoning", "d")]
    facts = [{"kind": kind, "group": group} for kind, group in rows for _ in range(2)]
    answers = [["Yes"], ["No"]] * 4
    outputs = ["Yes", "No", "Yes", "Yes", "No", "The answer is no", "yes.", "no"]
    of = mme.lmms_totals(outputs, answers, facts)
    whole = {"existence": 125, "count": 0, "commonsense_reasoning": 200, "perception": 125, "cognition": 200}
    assert of(np.arange(8)) == whole
    assert of(np.array([0, 1, 0, 1, 2, 3])) == {"existence": 150, "perception": 150}
    assert (
        mme.lmms_totals(outputs[:7], answers[:7], facts[:7])(np.arange(7))["perception"] == 125
    )  # d is not whole
    assert mme.strict_totals(outputs, answers, facts)(np.arange(8)) == whole


@pytest.mark.parametrize(("output", "letter"), [
    ("B", "B"), ("B.", "B"), ("(B)", "B"), ("b", ""), ("A dog is there", "B"), ("Option: C", "C"), ("(B),", ""),
    ("A, B.", "B"), ("B. C.", ""), ("A is it (B) ok", "B"), ("two birds a dog", ""), (":B).", "B"), ("A is right", "A"),
])  # fmt: skip
def test_mmbench_letters(output, letter):
    assert letters.infer(output, ANIMALS) == letter


def test_mmbench():
    static = [("A", "A"), ("B.", "B"), ("two birds", "C"), ("zzz", "D"), ("B", "A")]
    assert np.mean([mmbench.lmms(o, [a], {"options": ANIMALS}) for o, a in static]) == pytest.approx(0.6)
    facts = [{"options": ANIMALS, "group": "7", "index": 7 + n * 1_000_000} for n in range(4)]
    turned = mmbench.lmms_totals(["A", "B", "C", "A"], [["A"], ["B"], ["C"], ["D"]], facts)
    assert turned(np.arange(4)) == {"circular": 0, "vanilla": 1}
    other = [{**fact, "group": "8"} for fact in facts[:2]]
    both = mmbench.strict_totals(
        ["A", "B", "C", "A", "a", "(B)"], [["A"], ["B"], ["C"], ["D"], ["A"], ["B"]], facts + other
    )
    assert both(np.arange(6))["circular"] == 0.5 and both(np.array([4, 5, 4, 5]))["circular"] == 1


@pytest.mark.parametrize(("output", "ours", "fixed"), [
    ("B", 1, 1), ("b", 1, 1), ("B.", 1, 1), ("B. y", 1, 1), ("b. y", 0, 1), ("(B)", 0, 1), ("The answer is B", 0, 1),
    ("", 0, 0), ("A", 0, 0),
])  # fmt: skip
def test_scienceqa(output, ours, fixed):
    facts = {"options": ["x", "y"]}
    assert scienceqa.lmms(output, ["B"], facts) == ours and scienceqa.strict(output, ["B"], facts) == fixed


@pytest.mark.parametrize(("output", "ours", "fixed"), [
    ("B. owl", 1, 1), (" B.", 1, 1), ("b", 1, 1), ("(B)", 1, 1), ("B owl", 0, 1), ("owl", 0, 1), ("C. owl", 0, 0),
])  # fmt: skip
def test_ai2d(output, ours, fixed):
    facts = {"options": ["fox", "owl", "cat", "hen"]}
    assert ai2d.lmms(output, ["B"], facts) == ours and ai2d.strict(output, ["B"], facts) == fixed


@pytest.mark.parametrize(("output", "answer", "ours", "fixed"), [
    ("104", "100", 1, 1), ("105", "100", 1, 1), ("105.1", "100", 0, 0), ("95", "100", 1, 1), ("42%", "0.42", 1, 1),
    ("42", "42%", 0, 1), ("0.0", "0", 0, 1), ("2019", "2020", 1, 0), ("14 ", "14", 1, 1), ("$1,200.", "1200", 0, 1),
    ("Blue.", "blue", 0, 1), ("", "", 1, 0), ("", "5", 0, 0), ("1e2", "100", 1, 0), ("blue", "red", 0, 0),
])  # fmt: skip
def test_chartqa(output, answer, ours, fixed):
    assert chartqa.lmms(output, [answer]) == ours and chartqa.strict(output, [answer]) == fixed


@pytest.mark.parametrize(("output", "answers", "score"), [
    ("paris", ["Paris"], 1), ("pariss", ["Paris"], 0.833333), ("0.82", ["0.28"], 0.5),
    ("New York", ["New York City"], 0.615385), ("The answer is 100", ["100"], 0),
    ("July 12 2001", ["July 12, 2001", "12 July 2001"], 0.923077),
])  # fmt: skip
def test_docvqa(output, answers, score):
    pytest.importorskip("rapidfuzz")
    assert docvqa.lmms(output, answers) == pytest.approx(score, abs=5e-7)
    assert docvqa.strict(output, answers) == pytest.approx(score, abs=5e-7)
    assert docvqa.lmms("  abxd  ", ["abcd"]) == 0.875 and docvqa.strict("  abxd  ", ["abcd"]) == 0.75


@pytest.mark.parametrize(("dataset", "output", "answer", "ours", "fixed"), [
    ("z", "The sign says stop.", "STOP", 1, 1), ("z", "It is 2012", "12", 1, 0),
    ("HME100k", "x^{2}+1", "x ^ { 2 } + 1", 1, 1),
    ("z", "ab", "a b", 0, 0), ("z", "a b", "A\nB", 1, 1), ("z", "abc1", "ＡＢＣ１", 1, 1),
    ("HME100k", "AB", "ab", 0, 0),
    ("z", "q", "", 1, 0), ("z", "xa", " a ", 1, 0), ("z", "出口在左", "出口", 1, 1),
])  # fmt: skip
def test_ocrbench(dataset, output, answer, ours, fixed):
    facts = {"dataset": dataset}
    assert ocrbench.lmms(output, ["zebra", answer], facts) == ours
    assert ocrbench.strict(output, ["zebra", answer], facts) == fixed


@pytest.mark.parametrize(("output", "overlap"), [
    ("[0.1, 0.1, 0.5, 0.5]", 1), ("[0.2,0.2,0.5,0.5]", 0.5625), ("(0.1,0.1,0.5,0.5)", 0), ("[100, 100, 500, 500]", 0),
    ("[.1,.1,.5,.5]", 0), ("[ 0.1 , 0.1 , 0.5 , 0.5 ]", 0), ("[0.1, 0.1, 0.5, 0.5, 0.6]", 0), ("", 0),
    ("x [0.1,0.1,0.5,0.5] [1,2,3,4]", 1), ("[0.5,0.5,0.1,0.1]", 0),
])  # fmt: skip
def test_refcoco(output, overlap):
    answers = ["[0.1, 0.1, 0.5, 0.5]"]
    found = refcoco.lmms_totals([output], [answers], [{}])(np.arange(1))
    assert found["iou"] == pytest.approx(overlap) and refcoco.lmms(output, answers) == (overlap >= 0.5)


def test_refcoco_in_other_units():
    answers, size = ["[0.100000, 0.100000, 0.500000, 0.500000]"], [640, 480]
    assert refcoco.strict("(0.1,0.1,0.5,0.5)", answers, {"boxes": "unit", "size": size}) == 1
    assert refcoco.strict("[100, 100, 500, 500]", answers, {"boxes": "thousand", "size": size}) == 1
    assert refcoco.strict("[100, 100, 500, 500]", answers, {"boxes": "unit", "size": size}) == 0
    assert refcoco.strict("<box>[64, 48, 320, 240]</box>", answers, {"boxes": "pixels", "size": size}) == 1
    lost = refcoco.strict_totals(["nowhere", "(0,0,1,1)"], [answers] * 2, [{"boxes": "unit"}] * 2)(
        np.arange(2)
    )
    assert lost["unparsed"] == 0.5 and lost["iou"] == pytest.approx(0.16 / 2)


@pytest.mark.parametrize(("output", "letter"), [
    ("Answer: D", "D"), ("A dog and B", "A"), ("I choose D because A is wrong", "A"),
    ("The answer is (C). A is not", "A"), ("b", ""), ("D) x", "D"), ("B. or C.", "B"), ("B\nC", "B"),
    ("The answer is D then B", "B"), ("Definitely", "D"),
    ("x (A) y B. z", "A"), ("x B. y (A) z", "A"), ("x B) y C: z", "C"), ("x B: y C z", "B"), ("x (C) x B]", "C"),
    ("x (C) x B .", "B"), ("[B] (C) y ", "C"), ("B] (C) y ", "B"), ("**B**", "B"), ("x yB z C, w", "B"), ("", ""),
])  # fmt: skip
def test_the_extractor_of_letters(output, letter):
    assert letters.extract(output) == letter


def test_videomme():
    facts = {"options": ANIMALS}
    assert videomme.lmms("xDy Fz", ["D"]) == 1, "it has four letters only"
    assert videomme.lmms("b", ["B"]) == 0 and videomme.strict("b", ["B"], facts) == 1
    assert videomme.lmms("", ["A"]) == videomme.strict("", ["A"], facts) == 0
    assert videomme.lmms("The answer is (C). A is not", ["C"]) == 0
    assert videomme.strict("The answer is (C). A is not", ["C"], facts) == 1


@pytest.mark.parametrize(("output", "score"), [
    ("(B) x", 1), ("b", 1), ("a cat", 0), ("", 0), ("option:b", 1), ("x.b", 0), ("b-c", 1), (" B. A", 1), ("It's B", 1),
])  # fmt: skip
def test_mvbench(output, score):
    assert mvbench.lmms(output, ["B"]) == score


def test_mvbench_leaves_empty_answers_out():
    facts = [{"kind": "action_count", "options": ["x", "y"]}] * 3
    args = (["(B) y", "", "A"], [["B"]] * 3, facts)
    assert mvbench.lmms_totals(*args)(np.arange(3)) == {"mean of tasks": 0.5, "empty": pytest.approx(1 / 3)}
    assert mvbench.strict_totals(*args)(np.arange(3))["mean of tasks"] == pytest.approx(1 / 3)
    two = [facts[0], facts[0], {**facts[0], "kind": "state_change"}]
    assert mvbench.lmms_totals(["B", "A", "A"], [["B"]] * 3, two)(np.arange(3))["mean of tasks"] == 0.25


def test_egoschema():
    lines = dict(zip("ABCDE", ["C cuts wood", "C eats", "the man walks the dog home", "C sings", "C sleeps"]))
    read = [egoschema.lmms_letter(text, lines) for text in (
        "B. C cuts wood", "C cuts wood", "B", "(B)", "E and (D)", "x,B", "B:", "'B'", "B)", "[B]", "B\nx", "zzz", "",
        "we saw c. the man walks the dog home today",
    )]  # fmt: skip
    assert read == ["B", "C", "B", "B", "E", "B", "B", "B", "", "", "", "", "", "C"]
    facts = {"options": lines, "id": "q1"}
    assert sum(egoschema.lmms("zzz", [letter], facts) for letter in lines) == 1, "one is drawn"
    assert sum(egoschema.strict("zzz", [letter], facts) for letter in lines) == 0
    assert egoschema.strict("C cuts wood", ["A"], facts) == 1


def test_longvideobench():
    read = [longvideobench.lmms_letter(text) for text in (
        "D. A book", "Answer: B", "Certainly, B", "The best answer is B", "Best option: D", "Best option D", "x", "",
    )]  # fmt: skip
    assert read == ["D", "A", "C", "B", "D", "B", "", ""]
    facts = {"options": ["x", "y", "z"], "id": "q"}
    assert sum(longvideobench.lmms("", [letter], facts) for letter in "ABC") == 1
    assert longvideobench.strict("Certainly, B", ["B"], facts) == 1
    pairs = [("A", "A"), ("A", "B"), ("A", "A")]
    assert np.mean([longvideobench.lmms(o, [a], facts) for o, a in pairs]) == pytest.approx(2 / 3)


def test_a_drawn_letter_depends_on_the_sample_alone():
    found = [drawn("ABCD", {"id": str(n)}) for n in range(400)]
    assert found == [drawn("ABCD", {"id": str(n)}) for n in range(400)]
    assert all(60 < found.count(letter) < 140 for letter in "ABCD")
    assert found != [drawn("ABCD", {"id": str(n)}, seed=1) for n in range(400)]


@pytest.mark.parametrize(("output", "letter"), [
    ("B", "B"), ("b", "B"), ("b)", "B"), ("**B**", "B"), ("A dog is there", "B"), ("A dog and B", "B"), ("Z", ""),
    ("", ""), ("both B and C", ""), ("the answer is a dog", "B"), ("Answer: d", "D"), ("It's two birds, not a dog", ""),
    ("None.", "D"),
    ("I choose D because A is wrong", "D"), ("B's", ""), ("a dog", "B"), ("E", ""),
])  # fmt: skip
def test_the_strict_reading(output, letter):
    assert letters.choice(output, ANIMALS) == letter
