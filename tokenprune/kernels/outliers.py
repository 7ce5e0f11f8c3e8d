"""Tokens that stand out of a distribution, and even fillings of a budget around them."""

from __future__ import annotations

import torch
from torch import BoolTensor, Tensor


def quantile(rising: Tensor, p: float) -> Tensor:
    """(S, N) ascending rows -> (S, 1) their p-quantile, linear between neighbours."""
    place = p * (rising.shape[1] - 1)
    low = int(place)
    a, b = rising[:, low : low + 1], rising.narrow(1, min(low + 1, rising.shape[1] - 1), 1)
    return a.lerp(b, place - low)


def upper_outliers(a: Tensor) -> tuple[BoolTensor, int]:
    """(S, N) -> (S, N) a > q3 + 1.5 (q3 - q1) or the first largest, and the most there can be of them in a row."""
    n = a.shape[1]
    rising = a.sort(dim=1).values
    q1, q3 = quantile(rising, 0.25), quantile(rising, 0.75)
    fence = torch.add(q3, q3 - q1, alpha=1.5)
    outlier = (a > fence).scatter(1, a.argmax(1, keepdim=True), True)
    return outlier, max(1, -(-(n - 1) // 4))  # type: ignore[return-value]


def fill_evenly(chosen: Tensor, total: int) -> BoolTensor:
    """(S, N) bool with at most `total` set in a row -> (S, N) with exactly so many.

    Of the R others of a row, in their order, those at places floor(i R / m) for i < m = total - (number set).
    """
    left = (~chosen).long()
    others, rank = left.sum(1, keepdim=True).clamp_min(1), left.cumsum(1)
    missing = total - chosen.sum(1, keepdim=True)

    def due(seen: Tensor) -> Tensor:
        return (seen * missing + others - 1) // others  # how many places lie among the first `seen` others

    return chosen | ((left > 0) & (due(rank) > due(rank - 1)))  # type: ignore[return-value]
