"""ChartQA (Masry et al. 2022, arXiv:2203.10244): numbers and words read from charts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..metrics import relaxed
from ..metrics.answers import TOLERANCE
from ..metrics.text import one_line
from .base import Asked, Benchmark, Part, Place, Row
from .fields import ANY_TEXT, PICTURE, TEXT
from .scoring import Facts, Scorer

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?%?")
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """Relaxed accuracy: numbers within 5 %, years among them, other texts equal but for case."""
    return relaxed(output, answers)


def strict(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """Relaxed accuracy that reads "$1,200." as 1200, takes a year only for itself, and compares numbers with 0 too.

    A % sign on one side only is a unit left out: 42 answers 42 %.
    """
    return float(any(_right(_tidy(output), _tidy(answer)) for answer in answers))


def _tidy(text: str) -> str:
    return one_line(text.lower()).rstrip(".").strip().lstrip("$€£").strip()


def _number(text: str) -> float | None:
    bare = text.rstrip("%").replace(",", "")
    return float(bare) if _NUMBER.fullmatch(text) and any(c.isdigit() for c in bare) else None


def _right(said: str, truth: str) -> bool:
    if not said or said == truth:
        return bool(said)
    a, b = _number(said), _number(truth)
    if a is None or b is None or _YEAR.fullmatch(truth):
        return False
    if said.endswith("%") != truth.endswith("%"):  # the sign left out, or a share in place of percent
        values = {a, a / 100} if said.endswith("%") else {a, 100 * a}
        return any(abs(value - b) <= TOLERANCE * abs(b) for value in values)
    return abs(a - b) <= TOLERANCE * abs(b)


ASK = "\nAnswer the question with a single word."


def _ask(row: Row, place: Place) -> list[Asked]:
    kind = row["type"].removesuffix("_test") or None
    return [Asked(str(place.number), row["question"] + ASK, (row["answer"],), kind)]


BENCHMARKS = (
    Benchmark(
        name="chartqa",
        title="ChartQA, test",
        ids=("lmms-lab-encoder/ChartQA", "lmms-lab/ChartQA"),
        parts=(Part(None, "test"),),
        fields={"type": ANY_TEXT, "question": TEXT, "answer": TEXT, "image": PICTURE},
        ask=_ask,
        max_new_tokens=16,
        lmms=Scorer(lmms),
        strict=Scorer(strict),
        prompt="{question}" + ASK,
        rows="2,500",
    ),
)
