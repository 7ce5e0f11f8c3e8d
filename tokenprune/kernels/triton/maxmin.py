"""Farthest-first picks of each image in one program: no launch and no wait between two picks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..gram import Gram
from .shared import pow2

TOKENS = 8192
"""The most tokens of an image whose state one program holds."""


@triton.jit
def _walk(
    gram, gain, weight, bonus, order, worth, away, n, count, START: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    there = i < n
    gram += image * n * n
    near = tl.load(gain + image * n + i, mask=there, other=0.0)
    heavy = tl.load(weight + image * n + i, mask=there, other=0.0)
    extra = tl.load(bonus + image * n + i, mask=there, other=float("-inf"))
    far = tl.full([BLOCK], START, tl.float32)
    for k in range(count):
        pick = tl.argmax(extra + heavy * near, 0, tie_break_left=True)
        tl.store(order + image * count + k, pick.to(tl.int64))
        tl.store(worth + image * count + k, tl.sum(tl.where(i == pick, far, 0.0), 0))
        extra = tl.where(i == pick, float("-inf"), extra)
        row = tl.load(gram + pick.to(tl.int64) * n + i, mask=there, other=0.0)
        far = tl.minimum(far, tl.maximum(1.0 - row, 0.0))
        near = far
    tl.store(away + image * n + i, far, mask=there)


def walk(
    gain: Tensor, weight: Tensor, bonus: Tensor, gram: Gram, count: int, farthest: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As the reference, where all inner products are in memory."""
    s, n = gain.shape
    if gram.whole is None or n > TOKENS or not count:
        return NotImplemented
    order = torch.empty(s, count, dtype=torch.int64, device=gain.device)
    worth, away = torch.empty(s, count, device=gain.device), torch.empty_like(gain)
    block = pow2(n, 32)
    _walk[(s,)](
        gram.whole, gain, weight, bonus, order, worth, away, n, count, START=farthest, BLOCK=block,
        num_warps=max(1, min(8, block // 256)),
    )  # fmt: skip
    return order, worth, away
