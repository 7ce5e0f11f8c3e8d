"""Weighted means of groups, each summed in the order of its members: the same on every run."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..similarity import TINY
from .shared import cdiv, pow2


@triton.jit
def _mean(
    values, order, start, weight, out, groups, width,
    v_s, v_n, v_d, o_s, s_s, w_s, w_n,
    SMALL: tl.constexpr, R: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """D channels of one group's mean; its members are read in place, R at a time."""
    image = (tl.program_id(0) // groups).to(tl.int64)
    group = tl.program_id(0) % groups
    d = tl.program_id(1) * D + tl.arange(0, D)
    begin = tl.load(start + image * s_s + group)
    end = tl.load(start + image * s_s + group + 1)
    total = tl.zeros([D], tl.float32)
    mass = tl.zeros([], tl.float32)
    for first in range(begin, end, R):
        i = first + tl.arange(0, R)
        member = tl.load(order + image * o_s + i, mask=i < end, other=0)
        share = tl.full([R], 1.0, tl.float32)
        if weight is not None:
            share = tl.load(weight + image * w_s + member * w_n, mask=i < end, other=0.0).to(tl.float32)
        share = tl.where(i < end, share, 0.0)
        row = tl.load(
            values + image * v_s + member[:, None] * v_n + d[None, :] * v_d,
            mask=(i < end)[:, None] & (d < width)[None, :],
            other=0.0,
        )
        total += tl.sum(row.to(tl.float32) * share[:, None], 0)
        mass += tl.sum(share, 0)
    mean = total / tl.maximum(mass, SMALL)
    tl.store(out + (image * groups + group) * width + d, mean.to(out.dtype.element_ty), mask=d < width)


def means(values: Tensor, label: Tensor, count: int, weight: Tensor | None) -> Tensor:
    """(S, N, D), (S or 1, N) groups in [0, count), (S or 1, N) weights or none -> (S, count, D)."""
    s, _, width = values.shape
    sorted_label, order = label.contiguous().sort(dim=1, stable=True)
    edges = torch.arange(count + 1, device=label.device).expand(label.shape[0], -1).contiguous()
    start = torch.searchsorted(sorted_label, edges)
    out = torch.empty(s, count, width, dtype=values.dtype, device=values.device)
    block = pow2(min(width, 256))
    shared = [t.stride(0) if t.shape[0] > 1 else 0 for t in (order, start)]
    light = (0, 0) if weight is None else (weight.stride(0) if weight.shape[0] > 1 else 0, weight.stride(1))
    _mean[(s * count, cdiv(width, block))](
        values, order, start, weight, out, count, width, *values.stride(), *shared, *light,
        SMALL=TINY, R=8, D=block,
    )  # fmt: skip
    return out


def group_means(values: Tensor, label: Tensor, count: int, weight: Tensor) -> Tensor:
    """As the reference."""
    return means(values, label, count, weight) if count else NotImplemented
