"""MMBench (Liu et al. 2023, arXiv:2307.06281): a question counts if it is answered with its options in every order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .letters import choice_score, extract, infer
from .scoring import Facts, OfRows, firsts, mean_of

ROTATION = 1_000_000
"""A row's index modulo this is its question; the options of rows from here on are turned."""


def lmms(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the letter read is right: what MMBench reads without a judge, and where it reads none, lmms-eval's extractor.

    facts: "options", the letters with their texts.
    """
    return float((infer(output, facts["options"]) or extract(output)) in answers)


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option beyond doubt."""
    return choice_score(output, answers, facts["options"])


def lmms_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """`circular`: share of questions with every rotation right; `vanilla`: of the rows whose options are not turned.

    facts: "group" is the question, "index" the row's. A question counts by the rotations that are among the rows.
    """
    return _totals(lmms, outputs, answers, facts)


def strict_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """The same of the strict reading."""
    return _totals(strict, outputs, answers, facts)


def _totals(
    each: Callable[[str, Sequence[str], Facts], float],
    outputs: Sequence[str],
    answers: Sequence[Sequence[str]],
    facts: Sequence[Facts],
) -> OfRows:
    right = np.array([each(*row) for row in zip(outputs, answers, facts)])
    codes, first = firsts([fact["group"] for fact in facts])
    every = np.ones(codes.max() + 1)
    np.minimum.at(every, codes, right)
    plain = np.array([int(fact["index"]) < ROTATION for fact in facts])

    def of(rows: np.ndarray) -> dict[str, float]:
        found = {"circular": float(np.mean(every[codes[rows[first[rows]]]]))}
        unturned = rows[plain[rows]]
        return found | ({"vanilla": mean_of(right, unturned)} if unturned.size else {})

    return of
