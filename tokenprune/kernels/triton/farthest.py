"""A frame's farthest-first picks in one program an image."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..farthest import Picker
from .maxmin import TOKENS
from .shared import pow2


@triton.jit
def _take(gram, near, weight, first_key, order, n, count, w_s, w_n, BLOCK: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    there = i < n
    gram += image * n * n
    now = tl.load(near + image * n + i, mask=there, other=0.0)
    if weight is not None:
        heavy = tl.load(weight + image * w_s + i * w_n, mask=there, other=0.0)
    for k in range(count):
        key = now
        if weight is not None:
            key = (now - 1.0) * heavy
        if first_key is not None:  # noqa: SIM102 - known when the kernel is built, k is not
            if k == 0:
                key = tl.load(first_key + image * n + i, mask=there, other=0.0)
        pick = tl.argmin(tl.where(there, key, float("inf")), 0, tie_break_left=True)
        tl.store(order + image * count + k, pick.to(tl.int64))
        row = tl.load(gram + pick.to(tl.int64) * n + i, mask=there, other=0.0)
        now = tl.maximum(now, row)
    tl.store(near + image * n + i, now, mask=there)


def take(near: Tensor, picker: Picker, count: int) -> Tensor:
    """As the reference, where all inner products are in memory."""
    s, n = near.shape
    gram, weight, key = picker.gram, picker.weight, picker.key
    plain = near.is_contiguous() and (weight is None or weight.dtype == torch.float32)
    if gram is None or not plain or n > TOKENS or not count:
        return NotImplemented
    order = torch.empty(s, count, dtype=torch.int64, device=near.device)
    block = pow2(n, 32)
    _take[(s,)](
        gram, near, weight, None if key is None else key.contiguous(), order, n, count,
        *((0, 0) if weight is None else weight.stride()), BLOCK=block, num_warps=max(1, min(8, block // 256)),
    )  # fmt: skip
    picker.key = None
    return order
