"""What a benchmark's scorers are: functions of one answer, and of all answers where a score is no mean over them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Facts = Mapping[str, Any]
"""What a sample has besides its answers: "id", "kind", "group", and what its benchmark needs to score it."""
Each = Callable[[str, Sequence[str], Facts], float]
"""(output, answers, facts) -> score in [0, 1]."""
OfRows = Callable[[np.ndarray], dict[str, float]]
"""(k,) row numbers, repeated ones counting repeatedly -> scores by name; a score without cases is left out."""
Totals = Callable[[Sequence[str], Sequence[Sequence[str]], Sequence[Facts]], OfRows]
"""(outputs, answers, facts), one entry a sample -> the scores of any selection of them, for a bootstrap."""


@dataclass(frozen=True)
class Scorer:
    """How answers are scored: each by itself, and all together.

    headline: the total that papers report; "" where that is the mean of `each`.
    scale: what a total is multiplied by in tables; shares are shown in points.
    """

    each: Each
    totals: Totals | None = None
    headline: str = ""
    scale: float = 100.0

    def all(
        self, outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]
    ) -> dict[str, float]:
        """The totals of all samples; empty where the benchmark has none."""
        return {} if self.totals is None else self.totals(outputs, answers, facts)(np.arange(len(outputs)))


def drawn(letters: Sequence[str], facts: Facts, seed: int = 0) -> str:
    """A letter in place of one that cannot be read: by a hash of the sample's id, so that neither order nor shards
    matter."""
    digest = hashlib.sha256(f"{seed}|{facts.get('id', '')}".encode()).digest()
    return letters[int.from_bytes(digest[:8], "big") % len(letters)]


def firsts(keys: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Of the key of every row: the number of its group (n,), and whether it is its group's first row (n,) bool.

    A bootstrap draws whole groups, so that the first rows among those drawn count the groups drawn.
    """
    number: dict[Hashable, int] = {}
    codes = np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)
    first = np.zeros(len(codes), dtype=bool)
    first[np.unique(codes, return_index=True)[1]] = True
    return codes, first


def mean_of(values: np.ndarray, rows: np.ndarray) -> float:
    return float(np.mean(values[rows]))
