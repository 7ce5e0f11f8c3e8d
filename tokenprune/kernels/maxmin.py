"""Max-min selection: one token after the other, each as far as can be from those already chosen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import LongTensor, Tensor

from .gram import Gram
from .similarity import BLOCK_BYTES
from .switch import with_triton

FARTHEST = 2.0
"""The largest cosine distance there is; what a token is away from an empty choice."""


class Picks(NamedTuple):
    """A greedy choice. The first k of it are the choice of k."""

    index: LongTensor  # (S, K) in the order they were picked
    gain: (
        Tensor  # (S, N) distance to the nearest token chosen before it; for the others, to the nearest of all
    )


def max_min(
    x: Tensor,
    count: int,
    weight: Tensor | None = None,
    last: Tensor | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Picks:
    """(S, N, C) unit rows -> `count` tokens of each image, farthest first, with d_ij = 1 - <x_i, x_j> clamped at 0.

    First the token with the largest w_i times its distance to its nearest neighbour, then again and again
    argmax_i w_i min_{j chosen} d_ij. weight: (S, N) >= 0, None for ones. last: (N,) or (S, N) bool, tokens that are
    taken only when all others are. Ties to the lower index. `count` steps of O(N), or O(N C) where the products do
    not fit into one block of `block_bytes`; a fixed number of operations each, none of which waits for the device.
    """
    s, n, _ = x.shape
    gram = Gram(x, block_bytes)
    if weight is None:
        weight = torch.ones(s, n, device=x.device)
    else:  # at most 1, so that a token of the last ones cannot outbid the others
        weight = weight.float().clamp_min(0)
        weight = weight / weight.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    bonus = torch.zeros(s, n, device=x.device)
    if last is not None:
        bonus.masked_fill_(last, -2 * FARTHEST)
    gain = (1 - gram.nearest()).clamp_(0, FARTHEST)
    index, worth, away = walk(gain, weight, bonus, gram, count, FARTHEST)
    return Picks(index, away.scatter(1, index, worth))  # type: ignore[arg-type]


@with_triton("maxmin")
def walk(
    gain: Tensor, weight: Tensor, bonus: Tensor, gram: Gram, count: int, farthest: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(S, N) first gains, weights, bonuses -> (S, count) picks by weight * gain + bonus, (S, count) what each was
    away from those before it, (S, N) what all are away from the choice. Writes to `bonus` and to the products."""
    away = torch.full_like(gain, farthest)
    whole = gram.whole
    if whole is not None:  # distances from here on, so that a turn need not make them
        whole.neg_().add_(1).clamp_min_(0)
    order, worth = [], []
    for _ in range(count):
        pick = torch.addcmul(bonus, weight, gain).argmax(1, keepdim=True)
        order.append(pick)
        worth.append(away.gather(1, pick))
        bonus.scatter_(1, pick, float("-inf"))
        row = gram.row(pick)
        gain = away = torch.minimum(away, row if whole is not None else (1 - row).clamp_min_(0))
    return torch.cat(order, 1), torch.cat(worth, 1), away
