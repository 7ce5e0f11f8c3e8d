"""How much a token differs from another of the same image, and how much a place has been changing."""

from __future__ import annotations

import torch
from torch import Tensor

from .similarity import BLOCK_BYTES, unit

NONE = 2.0
"""The largest change there is: that of a token with nothing to be compared with."""


def change(x: Tensor, other: Tensor, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """(S, N, D), (N,) index of the token each is compared with, -1 for none -> (S, N) 1 - cosine, `NONE` for none.

    As half the squared distance of unit vectors, so that copies differ by exactly zero, and ties are ties.
    """
    s, n, width = x.shape
    step = max(1, block_bytes // (4 * s * width))
    x, parts = unit(x), []
    for i in range(0, n, step):
        apart = x[:, other[i : i + step]]  # -1 reads the last token, which is not looked at
        parts.append(apart.sub_(x[:, i : i + step]).square_().sum(2))
    away = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return (away / 2).masked_fill(other < 0, NONE)


def momentum(x: Tensor, previous: Tensor, alpha: float, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """(S, N, D), (N,) the same place one frame earlier, -1 for none -> (S, N) norms of the smoothed difference.

        m_1 = v_1 - v_0      m_i = alpha (v_i - v_{i-1}) + (1 - alpha) m_{i-1}      along each place; 0 for v_0

    The recurrence runs in all places and frames at once: after j doublings a token holds the terms of 2^j frames.
    Terms below 1e-9 of the first are left out. Channels come in blocks.
    """
    s, n, width = x.shape
    before = torch.where(previous < 0, n, previous)  # row n stands for "none" and is zero
    before = torch.cat([before, before.new_full((1,), n)])
    second = (previous >= 0) & (before[before[:-1]] == n)
    weight = torch.where(previous >= 0, torch.where(second, 1.0, alpha), 0.0).unsqueeze(1)
    step = max(1, block_bytes // (4 * s * (n + 1)))
    total = torch.zeros(s, n, device=x.device)
    for i in range(0, width, step):
        block = x[:, :, i : i + step].float()
        m = weight * (block - block.index_select(1, previous.clamp_min(0)))
        m = torch.cat([m, m.new_zeros(s, 1, m.shape[2])], 1)
        pointer, reach, decay = before, 1, 1.0 - alpha
        while decay > 1e-9 and reach < n:
            m = m + decay * m.index_select(1, pointer)
            pointer, reach, decay = pointer[pointer], 2 * reach, decay * decay
        total += m[:, :-1].square().sum(2)
    return total.sqrt()
