"""Answers and transcriptions scored by edit distance: insertions, deletions and substitutions of characters."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from ...errors import MissingExtraError
from .registry import metric
from .text import one_line

ANLS_THRESHOLD = 0.5


def _levenshtein() -> Any:
    try:
        return importlib.import_module("rapidfuzz.distance").Levenshtein
    except ImportError as error:
        raise MissingExtraError.of("rapidfuzz", "eval") from error


@metric("anls")
def anls(output: str, answers: Sequence[str]) -> float:
    """Average normalised Levenshtein similarity of one sample (Biten et al. 2019), for DocVQA and InfographicVQA.

    s = 1 - min over answers of distance / longer length, and 0 where s < 0.5. Case and spacing are forgiven in
    the distance; the lengths, as in lmms-eval, are those of the texts as given, in capitals ("ß" counts as "SS").
    """
    distance, said = _levenshtein().distance, one_line(output.lower())

    def error(answer: str) -> float:
        longest = max(len(answer.upper()), len(output.upper()))
        return distance(one_line(answer.lower()), said) / longest if longest else 0.0

    best = 1 - min(map(error, answers))
    return best if best >= ANLS_THRESHOLD else 0.0


@metric("cer")
def cer(output: str, answers: Sequence[str]) -> float:
    """1 - character error rate, not below 0: edits per character of the nearest answer, spacing forgiven.

    Higher is better, as for every metric here. An empty answer gives 1 to an empty output and 0 to any other.
    """
    distance, said = _levenshtein().distance, one_line(output)

    def error(truth: str) -> float:
        return min(1.0, distance(truth, said) / len(truth)) if truth else float(bool(said))

    return 1 - min(error(one_line(answer)) for answer in answers)


@metric("edit")
def edit(output: str, answers: Sequence[str]) -> float:
    """1 - edits per character of the longer of output and answer, spacing forgiven; the nearest answer counts."""
    similarity, said = _levenshtein().normalized_similarity, one_line(output)
    return max(similarity(one_line(answer), said) for answer in answers)
