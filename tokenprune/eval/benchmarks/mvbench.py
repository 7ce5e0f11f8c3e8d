"""MVBench (Li et al. 2023, arXiv:2311.17005): twenty tasks of 200 questions about short clips."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from ..metrics.vqa import without_marks
from .letters import by_letter, choice_score
from .scoring import Facts, OfRows, mean_of

_LETTERED = re.compile(r"([A-E])\.")
_ALONE = re.compile(r"\b[a-e]\b")


def lmms_letter(output: str) -> str:
    """"B." at the beginning, else the first a to e that stands alone once punctuation is gone: an article is an A."""
    if found := _LETTERED.match(output):
        return found.group(1)
    found = _ALONE.search(without_marks(output.strip()).lower())
    return found.group().upper() if found else ""


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if the letter read is right."""
    return float(lmms_letter(output) in answers)


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option; facts: "options" in order."""
    return choice_score(output, answers, by_letter(facts["options"]))


def lmms_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """`mean of tasks`, over the answers that are not empty, as lmms-eval counts them; `empty`, the share of the others.

    facts: "kind" is the task. A run that often says nothing looks better so than it is.
    """
    return _totals(lmms, False, outputs, answers, facts)


def strict_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """`mean of tasks` over all answers, and the share that is empty."""
    return _totals(strict, True, outputs, answers, facts)


def _totals(
    each: Callable[[str, Sequence[str], Facts], float],
    with_empty: bool,
    outputs: Sequence[str],
    answers: Sequence[Sequence[str]],
    facts: Sequence[Facts],
) -> OfRows:
    right = np.array([each(*row) for row in zip(outputs, answers, facts)])
    empty = np.array([not output for output in outputs])
    tasks, codes = np.unique([str(fact.get("kind")) for fact in facts], return_inverse=True)

    def of(rows: np.ndarray) -> dict[str, float]:
        counted = rows if with_empty else rows[~empty[rows]]
        means = [mean_of(right, part) for t in range(len(tasks)) if (part := counted[codes[counted] == t]).size]
        found = {"empty": mean_of(empty.astype(float), rows)}
        return found | ({"mean of tasks": float(np.mean(means))} if means else {})

    return of
