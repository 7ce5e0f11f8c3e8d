"""VQA accuracy among several annotators, and the normalisation of the VQA and EvalAI evaluations."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import InputError
from .contractions import CONTRACTIONS
from .registry import metric

ENOUGH = 3  # of the other annotators: as many as make an answer wholly right

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# The published code hands a flag of value 32 to the argument that counts replacements.
_PERIODS_DELETED = 32
_DIGITS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}


def _split_possessive(text: str) -> str:
    """EvalAI's first step, which VQAv2 does not take."""
    return text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()


def without_marks(text: str) -> str:
    """Punctuation deleted, or a blank in its place; what decides is the text as given, not as changed so far."""
    grouped = _DIGIT_COMMA_DIGIT.search(text) is not None
    changed = text
    for mark in _MARKS:
        loose = f"{mark} " in text or f" {mark}" in text
        changed = changed.replace(mark, "" if loose or grouped else " ")
    return _PERIOD.sub("", changed, count=_PERIODS_DELETED)


def vqa_plain(text: str, *, possessive: bool = True) -> str:
    """`text` as VQA answers are compared, step by step as lmms-eval does it.

    In this order: 's split off (only with `possessive`, as for TextVQA and VizWiz; VQAv2 goes without), line breaks
    and tabs to blanks, punctuation, number words up to ten to digits, articles dropped, apostrophes put back into
    contractions. Two oddities of the published code are kept because scores depend on them: a period survives
    before a digit only, whatever is in front of it, and no more than 32 periods are deleted.
    """
    if possessive:
        text = _split_possessive(text)
    text = without_marks(text.replace("\n", " ").replace("\t", " ").strip())
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _accuracy(name: str, output: str, answers: Sequence[str], possessive: bool) -> float:
    if len(answers) <= ENOUGH:  # nobody could reach 1
        raise InputError(
            f"metric {name!r} compares each annotator with the others and needs the answers of at least "
            f"{ENOUGH + 1}, not {len(answers)}; for a single right answer use 'exact'"
        )
    said = vqa_plain(output, possessive=possessive)
    agree = [vqa_plain(answer, possessive=possessive) == said for answer in answers]
    shares = [min(1.0, (sum(agree) - own) / ENOUGH) for own in agree]
    return sum(shares) / len(shares)


@metric("vqa")
def vqa(output: str, answers: Sequence[str]) -> float:
    """VQA accuracy (Antol et al. 2015) of TextVQA and VizWiz: `answers` are those of the annotators, usually ten.

    The mean over annotators i of min(1, others who gave the output / 3): 0, .3, .6, .9, 1 for 0 to 4 of ten.
    `InputError` with fewer than four annotators.
    """
    return _accuracy("vqa", output, answers, possessive=True)


@metric("vqav2")
def vqav2(output: str, answers: Sequence[str]) -> float:
    """VQA accuracy of VQAv2: as `vqa`, but 's stays on its word, so "it's" is "it's" and not "it 's"."""
    return _accuracy("vqav2", output, answers, possessive=False)
