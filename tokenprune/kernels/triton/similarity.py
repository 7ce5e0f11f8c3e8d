"""The nearest row of another set, without the matrix of similarities."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .shared import FLOAT32, alike, cdiv, pow2


@triton.jit
def _nearest(
    a, b, a_sort, b_sort, best, where, rows, columns, width, tiles,
    a_s, a_n, a_c, b_s, b_n, b_c, as_s, as_n, bs_s, bs_n,
    APART: tl.constexpr, SORTS: tl.constexpr, PRECISION: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """One tile of M rows of `a` against all of `b`, N at a time: the largest product, and the first place of it."""
    group = (tl.program_id(0) // tiles).to(tl.int64)
    m = (tl.program_id(0) % tiles) * M + tl.arange(0, M)
    c = tl.arange(0, C)
    inside = m < rows
    a += group * a_s + m[:, None] * a_n
    b += group * b_s
    if SORTS:
        own = tl.load(a_sort + group * as_s + m * as_n, mask=inside, other=0)
    top = tl.full([M], float("-inf"), tl.float32)
    place = tl.zeros([M], tl.int32)
    for start in range(0, columns, N):
        n = start + tl.arange(0, N)
        there = n < columns
        product = tl.zeros([M, N], tl.float32)
        for first in range(0, width, C):
            k = first + c
            x = tl.load(a + k[None, :] * a_c, mask=inside[:, None] & (k < width)[None, :], other=0.0)
            y = tl.load(
                b + n[None, :] * b_n + k[:, None] * b_c, mask=there[None, :] & (k < width)[:, None], other=0.0
            )
            product = tl.dot(x, y, product, input_precision=PRECISION)
        if SORTS:
            other = tl.load(b_sort + group * bs_s + n * bs_n, mask=there, other=0)
            product = tl.where(own[:, None] == other[None, :], product, product - APART)
        product = tl.where(there[None, :], product, float("-inf"))
        value, first_place = tl.max(product, 1, return_indices=True, return_indices_tie_break_left=True)
        better = value > top  # not where equal: the earlier tile has the lower index
        place = tl.where(better, start + first_place, place)
        top = tl.where(better, value, top)
    tl.store(best + group * rows + m, top, mask=inside)
    if where is not None:
        tl.store(where + group * rows + m, place.to(tl.int64), mask=inside)


def nearest(
    a: Tensor, b: Tensor, sorts: tuple[Tensor, Tensor] | None, apart: float, places: bool
) -> tuple[Tensor, Tensor | None]:
    """(G, A, C), (G, B, C) of any strides -> (G, A) largest products, (G, A) first place of each if `places`."""
    a, b = alike(a, b)
    groups, rows, width = a.shape
    best = torch.empty(groups, rows, device=a.device)
    where = torch.empty(groups, rows, dtype=torch.int64, device=a.device) if places else None
    m, n = pow2(min(rows, 64), 16), pow2(min(b.shape[1], 64), 16)
    tiles = cdiv(rows, m)
    own, other = (None, None) if sorts is None else (sort.to(torch.int32) for sort in sorts)
    steps = (0, 0, 0, 0) if own is None or other is None else (*own.stride(), *other.stride())
    _nearest[(groups * tiles,)](
        a, b, own, other, best, where, rows, b.shape[1], width, tiles, *a.stride(), *b.stride(), *steps,
        APART=apart, SORTS=sorts is not None, PRECISION=FLOAT32.value, M=m, N=n, C=pow2(min(width, 32), 16),
    )  # fmt: skip
    return best, where


def max_similarity(a: Tensor, b: Tensor, block_bytes: int = 0) -> Tensor:
    """As the reference; nothing is made in blocks."""
    return nearest(a, b, None, 0.0, False)[0]
