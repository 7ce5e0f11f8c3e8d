"""Greedy determinants of each image in one program: no launch and no wait between two picks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dpp import EXHAUSTED
from ..gram import Gram
from .maxmin import TOKENS
from .shared import pow2

WORK = 2**29
"""Multiply-adds up to which one program an image pays; beyond, the projections want the whole GPU. An estimate."""


@triton.jit
def _walk(
    gram, quality, later, left, done, order, n, count,
    SMALL: tl.constexpr, J: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    there = i < n
    gram += image * n * n
    done += image * count * n
    good = tl.load(quality + image * n + i, mask=there, other=float("-inf"))
    last = tl.load(later + image * n + i, mask=there, other=0.0)
    size = tl.load(left + image * n + i, mask=there & (good > float("-inf")), other=0.0)
    taken = tl.where(there, 0.0, float("-inf"))
    for k in range(count):
        adds = size > SMALL
        score = tl.where(adds, 2 * good + tl.log(tl.maximum(size, SMALL)), last)
        pick = tl.argmax(score + taken, 0, tie_break_left=True)
        tl.store(order + image * count + k, pick.to(tl.int64))
        taken = tl.where(i == pick, float("-inf"), taken)
        step = tl.load(gram + pick.to(tl.int64) * n + i, mask=there, other=0.0)
        for first in range(0, k, J):
            j = first + tl.arange(0, J)
            own = tl.load(done + j * n + pick, mask=j < k, other=0.0)
            rows = tl.load(
                done + j[:, None] * n + i[None, :], mask=(j < k)[:, None] & there[None, :], other=0.0
            )
            step -= tl.sum(own[:, None] * rows, 0)
        own_size = tl.sum(tl.where(i == pick, size, 0.0), 0)
        scale = tl.where(own_size > SMALL, 1.0 / tl.sqrt(tl.maximum(own_size, SMALL)), 0.0)
        step = step * scale
        tl.store(done + k * n + i, step, mask=there)
        tl.debug_barrier()  # read by all of this program's threads from now on
        size -= step * step


def walk(log_quality: Tensor, later: Tensor, left: Tensor, gram: Gram, count: int) -> Tensor:
    """As the reference, where all inner products are in memory and the projections are few."""
    s, n = log_quality.shape
    if gram.whole is None or n > TOKENS or not count or count * count * n > WORK:
        return NotImplemented
    order = torch.empty(s, count, dtype=torch.int64, device=later.device)
    done = torch.empty(s, count, n, device=later.device)
    block = pow2(n, 32)
    _walk[(s,)](
        gram.whole, log_quality.contiguous(), later, left, done, order, n, count, SMALL=EXHAUSTED,
        J=max(1, min(16, 4096 // block)), BLOCK=block, num_warps=max(1, min(8, block // 128)),
    )  # fmt: skip
    return order
