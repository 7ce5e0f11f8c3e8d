"""POPE (Li et al. 2023, arXiv:2305.10355): is an object in the picture? Three ways of choosing those that are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..metrics import pope_codes, pope_scores, yesno
from .base import Asked, Benchmark, Part, Place, Row, first_of
from .fields import ID, PICTURE, TEXT, YES_NO
from .gqa import SHORT
from .scoring import Facts, OfRows, Scorer
from .yesno import first_word, first_word_codes

KINDS = ("adversarial", "popular", "random")


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if the output is the answer but for case and outer blanks: "Yes." is wrong."""
    return yesno(output, answers)


def strict(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if the first word is the answer."""
    return float(first_word(output) in [answer.strip().lower() for answer in answers])


def lmms_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """Accuracy, precision, recall and F1 of "yes" over all rows; accuracy and F1 of every kind, and their means.

    An output that is not exactly yes or no counts in neither precision nor recall. `yes_ratio` is the share of outputs
    that say yes; lmms-eval takes it from the right answers, where it is always a half. `unparsed`: neither yes nor no.
    """
    return _totals(pope_codes, outputs, answers, facts)


def strict_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """The same of first words."""
    return _totals(first_word_codes, outputs, answers, facts)


def _totals(
    codes: Callable[[Sequence[str]], np.ndarray],
    outputs: Sequence[str],
    answers: Sequence[Sequence[str]],
    facts: Sequence[Facts],
) -> OfRows:
    said, truth = codes(outputs), pope_codes([answer[0] for answer in answers])
    kinds, kind_of = np.unique([fact.get("kind") or "" for fact in facts], return_inverse=True)

    def of(rows: np.ndarray) -> dict[str, float]:
        found = pope_scores(said[rows], truth[rows])
        found["unparsed"] = float(np.mean(said[rows] < 0))
        parts = {str(kind): rows[kind_of[rows] == code] for code, kind in enumerate(kinds) if kind}
        each = {kind: pope_scores(said[part], truth[part]) for kind, part in parts.items() if part.size}
        for score in ("accuracy", "f1"):
            found |= {f"{score}, {kind}": scores[score] for kind, scores in each.items()}
            if each:
                found[f"{score}, mean of kinds"] = float(np.mean([scores[score] for scores in each.values()]))
        return found

    return of


def _ask(row: Row, place: Place) -> list[Asked]:
    kind = row.get("category") or place.part.split
    group = first_of(row, "image_source")
    return [Asked(f"{kind}-{row['question_id']}", row["question"] + SHORT, (row["answer"],), kind, group)]


BENCHMARKS = (
    Benchmark(
        name="pope",
        title="POPE",
        aliases=("pope_full",),
        ids=("lmms-lab-encoder/POPE", "lmms-lab/POPE"),
        parts=(Part(None, "test"),),
        configs=dict.fromkeys(KINDS, "Full"),
        fields={
            "question_id": ID,
            "question": TEXT,
            "answer": YES_NO,
            "image": PICTURE,
            "category": TEXT.or_nothing(),
        },
        ask=_ask,
        max_new_tokens=128,
        lmms=Scorer(lmms, lmms_totals, "f1"),
        strict=Scorer(strict, strict_totals, "f1"),
        prompt="{question}" + SHORT,
        rows="9,000",
    ),
)
