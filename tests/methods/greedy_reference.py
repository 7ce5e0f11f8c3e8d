"""Greedy choices of one image in float64 and plain Python, and how close their closest call was."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch


def distances(x: torch.Tensor) -> list[list[float]]:
    """(N, C) -> 1 - cosine of every pair."""
    rows = x.double().tolist()
    length = [math.sqrt(sum(v * v for v in row)) for row in rows]
    return [
        [1 - sum(a * b for a, b in zip(p, q)) / (length[i] * length[j]) for j, q in enumerate(rows)]
        for i, p in enumerate(rows)
    ]


def farthest(
    x: torch.Tensor, count: int, weight: torch.Tensor | None = None, late: torch.Tensor | None = None
) -> tuple[list[int], list[float], float]:
    """(N, C) -> picks in their order, each token's distance to what was chosen before it, the closest call."""
    d, n = distances(x), len(x)
    w = [1.0] * n if weight is None else weight.double().tolist()
    waits = [False] * n if late is None else late.tolist()
    order, gain, close = [], [2.0] * n, math.inf
    for step in range(count):
        left = [i for i in range(n) if i not in order]
        left = [i for i in left if not waits[i]] or left
        if step:
            value = {i: w[i] * min(d[i][j] for j in order) for i in left}
        else:
            value = {i: w[i] * min((d[i][j] for j in range(n) if j != i), default=2.0) for i in left}
        ranked = sorted(left, key=lambda i: (-value[i], i))
        close = min(close, *(value[ranked[0]] - value[i] for i in ranked[1:]), math.inf)
        pick = ranked[0]
        if order:
            gain[pick] = min(d[pick][j] for j in order)
        order.append(pick)
    for i in range(n):
        if i not in order:
            gain[i] = min(d[i][j] for j in order)
    return order, gain, close


def determinants(x: torch.Tensor, quality: torch.Tensor, count: int) -> tuple[list[int], float]:
    """(N, C) unit rows, (N,) -> picks by the growth of det L of the choice itself; by quality where none grows it."""
    v = x.double().numpy() * quality.double().numpy()[:, None]
    kernel, n = v @ v.T, len(x)
    order, close = [], math.inf
    for _ in range(count):
        left = [i for i in range(n) if i not in order]
        before = np.linalg.slogdet(kernel[np.ix_(order, order)])[1] if order else 0.0
        growth, spare = {}, {}
        for i in left:
            both = [*order, i]
            sign, value = np.linalg.slogdet(kernel[np.ix_(both, both)])
            growth[i] = value - before if sign > 0 else -math.inf
            spare[i] = math.exp(min(growth[i], 700)) / max(kernel[i, i], 1e-300)  # share left unexplained
        if min((abs(math.log10(max(s, 1e-12)) + 5) for s in spare.values()), default=9) < 2:
            close = 0.0  # too near to what counts as exhausted
        able = [i for i in left if spare[i] > 1e-5]
        value = growth if able else {i: float(quality[i]) for i in left}
        ranked = sorted(able or left, key=lambda i: (-value[i], i))
        if len(ranked) > 1:
            close = min(close, value[ranked[0]] - value[ranked[1]] if able else math.inf)
        if not able and any(abs(value[a] - value[b]) < 1e-7 for a, b in itertools.pairwise(ranked)):
            close = 0.0
        order.append(ranked[0])
        # once the choice is singular its determinant says nothing more
        if not able:
            return [*order, *ranked[1 : count - len(order) + 1]], close
    return order, close
