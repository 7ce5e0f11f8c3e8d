"""AI2D (Kembhavi et al. 2016, arXiv:1603.07396): questions about diagrams of school books, four options."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..metrics.text import bare
from .base import Asked, Benchmark, Part, Place, Row
from .fields import INDEX, OPTIONS, PICTURE, TEXT
from .letters import ASK, by_letter, choice_score, listed, right_letter
from .scoring import Facts, Scorer

_LETTERED = re.compile(r"\s*([A-Z])\.")


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if the output, or the letter it starts with as "B.", is the answer but for case and punctuation."""
    found = _LETTERED.match(output)
    said = bare(found.group(1) if found else output)
    return float(said in map(bare, answers))


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option; facts: "options" in order."""
    return choice_score(output, answers, by_letter(facts["options"]))


def _ask(row: Row, place: Place) -> list[Asked]:
    options = by_letter(row["options"])
    question = f"{row['question']}\n{listed(options)}\n{ASK}"
    return [
        Asked(
            str(place.number),
            question,
            (right_letter(options, row["answer"]),),
            facts={"options": row["options"]},
        )
    ]


BENCHMARKS = (
    Benchmark(
        name="ai2d",
        title="AI2D, test",
        ids=("lmms-lab-encoder/ai2d", "lmms-lab/ai2d"),
        parts=(Part(None, "test"),),
        fields={"question": TEXT, "options": OPTIONS, "answer": INDEX, "image": PICTURE},
        ask=_ask,
        max_new_tokens=16,
        lmms=Scorer(lmms),
        strict=Scorer(strict),
        prompt="{question}\nA. ...\nB. ...\n" + ASK,
        rows="3,088",
    ),
)
