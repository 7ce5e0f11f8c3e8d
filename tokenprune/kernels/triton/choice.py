"""A focal layer's choice, a program a row: the largest scores as a mask, and a mask as indices."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .shared import kth_largest, pow2


@triton.jit
def _top(scores, count, out, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    scores += row * n
    wanted = tl.load(count + row).to(tl.int32)
    least = kth_largest(scores, n, tl.minimum(tl.maximum(wanted, 1), n), BLOCK)
    above = tl.zeros([], tl.int32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        above += tl.sum((tl.load(scores + i, mask=i < n, other=float("-inf")) > least).to(tl.int32), 0)
    seen = tl.zeros([], tl.int32)
    for start in range(0, n, BLOCK):  # of those that tie, the first ones fill up
        i = start + tl.arange(0, BLOCK)
        score = tl.load(scores + i, mask=i < n, other=float("-inf"))
        tied = ((score == least) & (i < n)).to(tl.int32)
        first = (tied > 0) & (seen + tl.cumsum(tied, 0) <= wanted - above)
        tl.store(out + row * n + i, ((score > least) | first) & (wanted > 0), mask=i < n)
        seen += tl.sum(tied, 0)


def top_mask(scores: Tensor, count: Tensor, most: int) -> Tensor:
    """As the reference, of float32."""
    if scores.dtype != torch.float32:
        return NotImplemented
    n = scores.shape[-1]
    out = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    counts = count.expand(scores.shape[:-1]).contiguous()
    _top[(scores.numel() // n,)](scores.contiguous(), counts, out, n, BLOCK=pow2(min(n, 4096)))
    return out


@triton.jit
def _list(mask, out, n, most, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    seen = tl.zeros([], tl.int32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        here = (tl.load(mask + row * n + i, mask=i < n, other=0) != 0).to(tl.int32)
        slot = seen + tl.cumsum(here, 0) - 1
        tl.store(out + row * most + slot, i.to(tl.int64), mask=(here > 0) & (slot < most))
        seen += tl.sum(here, 0)
    for start in range(0, most, BLOCK):
        i = start + tl.arange(0, BLOCK)
        nothing = tl.full([BLOCK], -1, tl.int64)
        tl.store(out + row * most + i, nothing, mask=(i >= seen) & (i < most))


def places(mask: Tensor, most: int) -> Tensor:
    """As the reference."""
    if not most:
        return NotImplemented
    n = mask.shape[-1]
    out = torch.empty(*mask.shape[:-1], most, dtype=torch.int64, device=mask.device)
    _list[(mask.numel() // n,)](mask.contiguous().view(torch.uint8), out, n, most, BLOCK=pow2(min(n, 4096)))
    return out
