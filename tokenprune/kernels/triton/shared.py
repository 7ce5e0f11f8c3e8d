"""What the kernels share: sizes of blocks, and small device functions."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

FLOAT32 = tl.constexpr("tf32x3")
"""How float32 products are made: three passes of tensor cores, within a few 2^-22 of exact ones."""

INTERPRETED = knobs.runtime.interpret
"""Triton runs its kernels step by step on the CPU."""

PROGRAMS = 256
"""Programs that fill a large GPU about twice; a fixed number, so that results do not depend on the device."""


def pow2(n: int, least: int = 1) -> int:
    """The power of two that holds n; a tensor core wants 16 of a dimension."""
    return max(least, triton.next_power_of_2(n))


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def alike(*tensors: Tensor) -> list[Tensor]:
    """All of them in their dtype if it is one, else in float32; so is bfloat16 for the interpreter, which cannot."""
    if len({t.dtype for t in tensors}) > 1 or (INTERPRETED and tensors[0].dtype == torch.bfloat16):
        return [t.float() for t in tensors]
    return list(tensors)


def additive(mask: Tensor | None, *shape: int) -> tuple[Tensor | None, int]:
    """A boolean or additive mask seen as `shape`, without a copy, and what it is: 0 none, 1 boolean, 2 additive."""
    if mask is None:
        return None, 0
    if mask.dtype == torch.bool:
        return mask.view(torch.uint8).expand(*shape), 1
    return mask.expand(*shape), 2


@triton.jit
def key_of(x):
    """float32 -> uint32 of the same order; both zeros are equal."""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    flipped = tl.where(bits < 0, ~bits, bits ^ -2147483648)
    return flipped.to(tl.uint32, bitcast=True)


@triton.jit
def value_of(key):
    """The float32 that `key_of` makes this of."""
    bits = key.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ -2147483648, ~bits).to(tl.float32, bitcast=True)


@triton.jit
def kth_largest(x, n, k, BLOCK: tl.constexpr):
    """The k-th largest of n float32 at `x`, 1 <= k <= n: its bits are found from the highest one down."""
    found = tl.full([], 0, tl.uint32)
    one = tl.full([], 1, tl.uint32)
    for step in range(32):
        trial = found | (one << (31 - step))
        count = tl.full([], 0, tl.int32)
        for start in range(0, n, BLOCK):
            i = start + tl.arange(0, BLOCK)
            keys = key_of(tl.load(x + i, mask=i < n, other=0.0))
            count += tl.sum(((keys >= trial) & (i < n)).to(tl.int32), 0)
        found = tl.where(count >= k, trial, found)
    return value_of(found)
