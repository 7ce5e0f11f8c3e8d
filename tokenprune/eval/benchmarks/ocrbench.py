"""OCRBench (Liu et al. 2023, arXiv:2305.07895): ten kinds of reading, right where the answer occurs in the output."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..metrics.text import one_line
from .base import Asked, Benchmark, Part, Place, Row
from .fields import PICTURE, TEXT, TEXT_OR_TEXTS
from .scoring import Facts, Scorer

FORMULAS = "HME100k"
"""The source of handwritten formulas, which are compared without blanks and with their case."""
_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}


def lmms(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if an answer occurs in the output, inside a word too: 12 is in 2012. facts: "dataset", the row's source."""
    if facts["dataset"] == FORMULAS:
        return float(any(_formula(answer) in _formula(output) for answer in answers))
    return float(any(_folded(answer) in _folded(output) for answer in answers))


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """As `lmms`, but an answer stands on its own, and one of no visible character is in nothing."""
    if facts["dataset"] == FORMULAS:
        return float(any(_formula(answer) in _formula(output) for answer in answers if answer.strip()))
    text = one_line(_folded(output))
    found = (one_line(_folded(answer)) for answer in answers)
    return float(any(_stands_in(answer, text) for answer in found if answer))


def _formula(text: str) -> str:
    return text.replace("\n", "").replace(" ", "")


def _folded(text: str) -> str:
    return text.translate(_HALF_WIDTH).lower().strip().replace("\n", " ")


def _stands_in(answer: str, text: str) -> bool:
    """Whether no letter or digit of the same script goes on before or behind it; Chinese is written without gaps."""
    before = r"(?<![a-z0-9])" if re.match(r"[a-z0-9]", answer) else ""
    behind = r"(?![a-z0-9])" if re.search(r"[a-z0-9]$", answer) else ""
    return re.search(before + re.escape(answer) + behind, text) is not None


def _ask(row: Row, place: Place) -> list[Asked]:
    answer = row["answer"]
    answers = (answer,) if isinstance(answer, str) else tuple(answer)
    return [
        Asked(
            str(place.number),
            row["question"],
            answers,
            row["question_type"],
            facts={"dataset": row["dataset"]},
        )
    ]


BENCHMARKS = (
    Benchmark(
        name="ocrbench",
        title="OCRBench",
        ids=("echo840/OCRBench",),
        parts=(Part(None, "test"),),
        fields={
            "dataset": TEXT, "question": TEXT, "question_type": TEXT, "answer": TEXT_OR_TEXTS, "image": PICTURE,
        },
        ask=_ask,
        max_new_tokens=128,
        lmms=Scorer(lmms),
        strict=Scorer(strict),
        prompt="{question}",
        rows="1,000",
    ),
)  # fmt: skip
