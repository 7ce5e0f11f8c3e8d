"""ScienceQA (Lu et al. 2022, arXiv:2209.09513), the questions that have a picture: school science, 2 to 5 options."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import letter
from .base import Asked, Benchmark, Part, Place, Row
from .fields import ANY_TEXT, INDEX, OPTIONS, PICTURE, TEXT
from .letters import ASK, by_letter, choice_score, listed, right_letter
from .scoring import Facts, Scorer


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if the output is the letter, in either case, or starts with it as "B.", in upper case."""
    return letter(output, answers)


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option; facts: "options" in order."""
    return choice_score(output, answers, by_letter(facts["options"]))


def _ask(row: Row, place: Place) -> list[Asked]:
    options = by_letter(row["choices"])
    context = f"Context: {row['hint']}\n" if row.get("hint") else ""
    question = f"{context}{row['question']}\n{listed(options)}\n{ASK}"
    return [
        Asked(
            str(place.number),
            question,
            (right_letter(options, row["answer"]),),
            facts={"options": row["choices"]},
        )
    ]


BENCHMARKS = (
    Benchmark(
        name="scienceqa",
        title="ScienceQA-IMG, test",
        aliases=("scienceqa_img",),
        ids=("lmms-lab-encoder/ScienceQA", "lmms-lab/ScienceQA"),
        parts=(Part("ScienceQA-IMG", "test"),),
        fields={
            "question": TEXT, "choices": OPTIONS, "answer": INDEX, "hint": ANY_TEXT.or_nothing(), "image": PICTURE,
        },
        ask=_ask,
        max_new_tokens=16,
        lmms=Scorer(lmms),
        strict=Scorer(strict),
        prompt="[Context: {hint}\n]{question}\nA. ...\nB. ...\n" + ASK,
        rows="2,017",
    ),
)  # fmt: skip
