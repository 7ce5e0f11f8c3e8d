"""Random numbers as a function of their place: the same on every device, in every batch, in any order."""

from __future__ import annotations

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
BITS = 24
"""Scores are multiples of 2^-24: exact in float32."""


def _mix(x: Tensor) -> Tensor:
    """A 32-bit integer hash in int64 arithmetic; both factors are below 2^31, so no product overflows."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x2C1B3C6D), (12, 0x297A2D39)):
        x = ((x ^ (x >> shift)) * factor) & MASK
    return x ^ (x >> 15)


def _keys(seed: int) -> tuple[int, int]:
    """Two 32-bit keys from a seed of any size (splitmix64)."""
    z = (seed + 0x9E3779B97F4A7C15) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    z ^= z >> 31
    return z >> 32, z & MASK


def hash_scores(seed: int, ordinal: Tensor, n: int) -> Tensor:
    """(S,) ordinals -> (S, n) float32 in [0, 1), a pure function of (seed, ordinal, index)."""
    high, low = _keys(seed)
    stream = _mix((ordinal.long() & MASK) ^ high).unsqueeze(1)
    index = torch.arange(n, device=ordinal.device)
    bits = _mix(_mix(index ^ low) ^ stream)
    return (bits >> (32 - BITS)).float() * 2.0**-BITS
