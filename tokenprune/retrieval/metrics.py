"""Recall and mean average precision as CraterBench-R (2026, arXiv:2604.06245) defines them.

A query's right answers are all gallery pictures of its relevant craters: its own, and those whose pictures show the
same ground. R is their number in the gallery.

    R@k = share of queries with a right picture among the first k
    AP  = (1 / R) sum_k P@k rel_k        P@k: share of right pictures among the first k; rel_k: the k-th is right
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

CUTS = (1, 5, 10)


@dataclass(frozen=True)
class Scores:
    """Means over queries, each with the lists they are means of; `skipped` had no right picture in the gallery."""

    map: float
    recall: dict[int, float]
    precisions: np.ndarray  # (queries,) average precision of each; NaN where skipped
    skipped: int


def right_answers(relevant: Sequence[Sequence[Hashable]], gallery: Sequence[Hashable]) -> np.ndarray:
    """(Q, G) bool: the crater of a gallery picture is among the query's."""
    number = {name: i for i, name in enumerate(dict.fromkeys(gallery))}
    owner = np.array([number[name] for name in gallery])
    out = np.zeros((len(relevant), len(gallery)), dtype=bool)
    for row, names in zip(out, relevant):
        row |= np.isin(owner, [number[name] for name in names if name in number])
    return out


def score_rankings(rankings: np.ndarray, right: np.ndarray, cuts: Sequence[int] = CUTS) -> Scores:
    """Rate rankings (Q, n) of gallery rows, best first, against `right` (Q, G).

    A ranking may be cut short (n < G): what it leaves out counts as never found.
    """
    rankings, right = np.asarray(rankings), np.asarray(right, dtype=bool)
    if rankings.ndim != 2 or right.ndim != 2 or len(rankings) != len(right):
        raise InputError(
            f"rankings {rankings.shape} and right answers {right.shape}: one row a query in both"
        )
    total = right.sum(1)
    asked = total > 0
    if not asked.any():
        raise InputError("no query has a right picture in the gallery")
    hit = np.take_along_axis(right, rankings, axis=1)
    found = hit.cumsum(1)
    precision = found / np.arange(1, rankings.shape[1] + 1)
    average = np.full(len(right), np.nan)
    average[asked] = ((precision * hit).sum(1))[asked] / total[asked]
    recall = {k: float(hit[asked, :k].any(1).mean()) for k in cuts}
    return Scores(float(average[asked].mean()), recall, average, int((~asked).sum()))


def ranking_of(scores: np.ndarray) -> np.ndarray:
    """(Q, G) scores -> (Q, G) rows, best first, ties to the lower row."""
    return np.argsort(-np.asarray(scores), axis=1, kind="stable")


def rerank(first: np.ndarray, scores: np.ndarray, shortlist: int) -> np.ndarray:
    """The first `shortlist` rows of rankings (Q, G) put into the order of `scores` (Q, G); the rest stays behind."""
    head = first[:, :shortlist]
    order = np.argsort(-np.take_along_axis(scores, head, axis=1), axis=1, kind="stable")
    return np.concatenate([np.take_along_axis(head, order, axis=1), first[:, shortlist:]], axis=1)
