"""Cosine similarities, never more than `BLOCK_BYTES` of them at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from .switch import with_triton

BLOCK_BYTES = 64 * 2**20
"""The largest similarity block any function of this folder allocates."""

TINY = 1e-12


def unit(x: Tensor) -> Tensor:
    """(..., C) of any float dtype -> float32 rows of length one; a zero row stays zero."""
    x = x.float()
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(TINY)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """(S, N, D), (S, T, D) unit rows -> (S, N, T) cosines in float32. `x` is not normalised in memory."""
    x = x.float()
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(TINY)
    return torch.bmm(x, y.transpose(1, 2)) / norm


@with_triton("similarity")
def max_similarity(a: Tensor, b: Tensor, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """(G, A, C), (G, B, C) -> (G, A): for each row of `a` the largest inner product with a row of `b`.

    Rows of `a` go in blocks whose number is a function of the shapes only.
    """
    groups, rows, _ = a.shape
    block = max(1, block_bytes // max(1, 4 * groups * b.shape[1]))
    bt = b.transpose(1, 2)
    if rows <= block:
        return torch.bmm(a, bt).amax(2)
    return torch.cat([torch.bmm(a[:, i : i + block], bt).amax(2) for i in range(0, rows, block)], 1)
