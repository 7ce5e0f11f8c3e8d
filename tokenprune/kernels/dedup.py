"""De-duplication by repeated bipartite matching: every turn drops the tokens that look most like another one."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import LongTensor, Tensor

from .similarity import BLOCK_BYTES, max_similarity

PAIRS = 1024
"""A window holds `window * PAIRS / n` of the `n` tokens left, so it widens as tokens go, until it holds them all."""


@lru_cache(maxsize=4096)
def dedup_turns(n: int, keep: int, share: float = 0.125, step: int = 8) -> tuple[int, ...]:
    """How many tokens each turn drops to come from `n` to exactly `keep`: a share of what is left, at least `step`.

    share = 0, step = 8 is the schedule of VisPruner and FlashVLM. At most half can go in one turn.
    """
    turns = []
    while n > keep:
        drop = min(max(step, math.ceil(share * n)), n - keep, (n + 1) // 2)
        turns.append(drop)
        n -= drop
    return tuple(turns)


def _windows(n: int, window: int | None, drop: int) -> tuple[int, int]:
    """(number of windows, pairs in each) for `n` tokens; one window when they all fit or too few could go."""
    if window is None:
        return 1, n // 2
    count = -(-n // max(window, window * PAIRS // n))
    pairs = n // count // 2
    return (1, n // 2) if count * pairs < max(drop, 1) else (count, pairs)


def bipartite_dedup(
    features: Tensor,
    order: Tensor,
    keep: int,
    *,
    share: float = 0.125,
    step: int = 8,
    window: int | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> LongTensor:
    """(S, N, C) unit rows, (S, R) candidate indices in their order -> (S, keep) indices that stay.

    A turn splits the r candidates left alternately into a (even places) and b (odd places), m_i = max_j <a_i, b_j>,
    drops the a with the largest m, and goes on with [the other a by falling m, b]. The number of turns and the ops
    of each are functions of (R, keep) alone, whatever S and the values.

    window: as long as r > sqrt(1024 window), candidates are taken in ascending order and compared only inside runs of
    neighbours, `window` long at least and wider as candidates go. Work falls from R^2 to R * window a turn. What no
    full window is left for waits a turn.
    """
    s, n, c = features.shape
    left = order.shape[1]
    if keep == 0:
        return order[:, :0]  # type: ignore[return-value]
    flat = features.reshape(s * n, c)
    base = torch.arange(0, s * n, n, device=order.device).unsqueeze(1)
    ids = order + base
    if _windows(left, window, 0)[0] > 1:
        ids = ids.sort(1).values
    for drop in dedup_turns(left, keep, share, step):
        count, pairs = _windows(left, window, drop)
        if count == 1:
            covered = left
            rows = torch.embedding(flat, ids)
            best = max_similarity(rows[:, 0::2], rows[:, 1::2], block_bytes)
        else:
            covered = 2 * count * pairs
            rows = torch.embedding(flat, ids[:, :covered]).view(s * count, pairs, 2, c)
            best = max_similarity(rows[:, :, 0], rows[:, :, 1], block_bytes).view(s, count * pairs)
        stay = best.argsort(dim=1, descending=True, stable=True)[:, drop:]
        parts = [ids[:, 0:covered:2].gather(1, stay), ids[:, 1:covered:2]]
        if covered < left:
            parts.append(ids[:, covered:])
        ids = torch.cat(parts, 1)
        left -= drop
        if count > 1:
            ids = ids.sort(1).values
    return ids - base  # type: ignore[return-value]
