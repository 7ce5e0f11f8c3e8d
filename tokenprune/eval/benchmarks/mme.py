"""MME (Fu et al. 2023, arXiv:2306.13394): two yes-or-no questions a picture, in fourteen categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ..metrics import mme_images, mme_label, mme_scores
from ..metrics.aggregates import MME_COGNITION, MME_PERCEPTION
from .base import Asked, Benchmark, Part, Place, Row
from .fields import ID, PICTURE, TEXT, YES_NO, Field
from .gqa import SHORT
from .scoring import Facts, OfRows, Scorer, firsts
from .yesno import first_word


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if the output says what the answer does: alone, as its letter, or within the first 4 characters."""
    return float(mme_label(output) == mme_label(answers[0]))


def strict(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if the first word is the answer: "not" and "nobody" are no "no"."""
    return float(first_word(output) == mme_label(answers[0]))


def lmms_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """Every category's score, 0 to 200, and their sums `perception` (at most 2000) and `cognition` (at most 800).

    facts: "kind" is the category, "group" the picture. A picture of which one answer is missing is left out.
    """
    return _totals(mme_label, outputs, answers, facts)


def strict_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """The same of first words."""
    return _totals(lambda text: first_word(text) or "other", outputs, answers, facts)


def _totals(
    label: Callable[[str], str],
    outputs: Sequence[str],
    answers: Sequence[Sequence[str]],
    facts: Sequence[Facts],
) -> OfRows:
    keys = [(str(fact["kind"]), str(fact["group"])) for fact in facts]
    questions = Counter(keys)
    whole = [i for i, key in enumerate(keys) if questions[key] == 2]
    codes, first = firsts([keys[i] for i in whole])
    image = np.full(len(keys), -1)  # the picture of its first row, -1 for every other row
    image[whole] = np.where(first, codes, -1)
    if not whole:
        return lambda rows: {}
    columns = ([outputs[i] for i in whole], [answers[i][0] for i in whole])
    kinds, scores = mme_images(*columns, [keys[i] for i in whole], [keys[i][0] for i in whole], label=label)
    names = np.array(kinds)

    def of(rows: np.ndarray) -> dict[str, float]:
        chosen = image[rows]
        chosen = chosen[chosen >= 0]
        return mme_scores(names[chosen], scores[chosen]) if chosen.size else {}

    return of


def _ask(row: Row, place: Place) -> list[Asked]:
    question = row["question"].strip().removesuffix(" Please answer yes or no.")
    image = f"{row['category']}/{row['question_id']}"
    return [Asked(image, question + SHORT, (row["answer"],), row["category"], image)]


BENCHMARKS = (
    Benchmark(
        name="mme",
        title="MME",
        ids=("lmms-lab-encoder/MME", "lmms-lab/MME"),
        parts=(Part(None, "test"),),
        fields={
            "question_id": ID, "question": TEXT, "answer": YES_NO, "image": PICTURE,
            "category": Field("one of MME's categories", lambda v: v in (*MME_PERCEPTION, *MME_COGNITION)),
        },
        ask=_ask,
        max_new_tokens=16,
        lmms=Scorer(lmms, lmms_totals, "perception", 1.0),
        strict=Scorer(strict, strict_totals, "perception", 1.0),
        prompt="{question without its last sentence}" + SHORT,
        rows="2,374",
    ),
)  # fmt: skip
