"""Greedy maximum-a-posteriori choice of a determinantal point process: tokens that are good and unlike each other."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor

from .gram import Gram
from .similarity import BLOCK_BYTES

EXHAUSTED = 1e-5
"""Share of its own L_ii below which a token counts as a combination of those chosen: float32 knows no better."""


def greedy_dpp(x: Tensor, quality: Tensor, count: int, block_bytes: int = BLOCK_BYTES) -> LongTensor:
    """(S, N, C) unit rows, (S, N) quality r >= 0 -> (S, count) tokens in the order they were picked.

    L = diag(r) x x^T diag(r). Each step takes the token that raises log det L of the choice most (Chen, Zhang and
    Zhou, 2018, arXiv:1709.05135, algorithm 1):

        j = argmax_i d_i^2      e_i = (L_ji - <c_j, c_i>) / d_j      c_i <- [c_i, e_i]      d_i^2 <- d_i^2 - e_i^2

    with d_i^2 = L_ii at first. No more than rank(L) tokens raise it: after them, and for tokens of r = 0, the order
    is by falling r. Ties to the lower index. `count` steps of O(N k), a (S, count, N) buffer, rows of L made on
    demand where L does not fit into `block_bytes`; no wait for the device.
    """
    s, n, _ = x.shape
    gram = Gram(x, block_bytes)
    quality = quality.float()
    left = gram.diagonal() * quality.square()  # d^2
    least = EXHAUSTED * left
    later = quality / quality.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) - 2
    taken = torch.zeros(s, n, device=x.device)
    done = torch.zeros(s, count, n, device=x.device)
    order = []
    for k in range(count):
        pick = (torch.where(left > least, left, later) + taken).argmax(1, keepdim=True)
        order.append(pick)
        taken.scatter_(1, pick, float("-inf"))
        row = gram.row(pick) * quality * quality.gather(1, pick)  # (S, N) of L
        chosen = done[:, :k].gather(2, pick.unsqueeze(1).expand(-1, k, -1))  # (S, k, 1)
        row = torch.baddbmm(row.unsqueeze(1), chosen.transpose(1, 2), done[:, :k], alpha=-1).squeeze(1)
        rest = left.gather(1, pick)
        some = rest > least.gather(1, pick)
        step = torch.where(some, row * rest.clamp_min(torch.finfo(torch.float32).tiny).rsqrt(), 0)
        done[:, k] = step
        left = left - step.square()
    return torch.cat(order, 1)  # type: ignore[return-value]
