"""Greedy maximum-a-posteriori choice of a determinantal point process: tokens that are good and unlike each other."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor

from .clusters import rows
from .gram import Gram
from .similarity import BLOCK_BYTES
from .switch import with_triton

EXHAUSTED = 1e-5
"""Squared distance below which a unit row counts as a combination of those chosen: float32 knows no better."""

LATER = -1e38
"""Where the scores of tokens that add nothing begin: below every other score, and still a float32."""


FEW = 1024
"""Tokens up to which a step costs its operations rather than its work, so that N^2 of it do not matter."""


def greedy_dpp(x: Tensor, log_quality: Tensor, count: int, block_bytes: int = BLOCK_BYTES) -> LongTensor:
    """(S, N, C) unit rows, (S, N) log r (-inf for r = 0) -> (S, count) tokens in the order they were picked.

    Each step takes the token that raises log det of L = diag(r) x x^T diag(r) over the choice most (Chen, Zhang and
    Zhou, 2018, arXiv:1709.05135, algorithm 1). det L_Y = det (x x^T)_Y prod r_i^2, so the recursion runs on the
    cosines alone, whatever the size of r:

        j = argmax_i 2 log r_i + log d_i^2      e_i = (<x_j, x_i> - <c_j, c_i>) / d_j      c_i <- [c_i, e_i]
        d_i^2 <- d_i^2 - e_i^2, at first <x_i, x_i>

    No more than rank(x) tokens raise it: those that cannot, and those of r = 0, come last, by falling r. Ties to the
    lower index. `count` steps of O(N k), a (S, count, N) buffer, cosines made on demand where they do not fit into
    `block_bytes`; no wait for the device.
    """
    n = x.shape[1]
    gram = Gram(x, block_bytes)
    log_quality = log_quality.float()
    rank = log_quality.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    later = LATER * (1 + rank / n)
    return walk(log_quality, later, gram.diagonal(), gram, count)  # type: ignore[return-value]


@with_triton("dpp")
def walk(log_quality: Tensor, later: Tensor, left: Tensor, gram: Gram, count: int) -> Tensor:
    """The recursion: (S, N) log r, scores of what adds nothing, and d^2 -> (S, count) picks. Writes to the products."""
    if gram.whole is not None and left.shape[1] <= FEW:
        gram.whole.diagonal(0, 1, 2).copy_(left)  # the same for copies of a token, as products need not be
        return _eliminate(log_quality, later, gram.whole, count)
    s, n = left.shape
    inf, twice = float("inf"), 2 * log_quality
    left = torch.where(twice > -inf, left, 0.0)  # r = 0 adds nothing, nor takes anything when it is picked
    taken = torch.zeros(s, n, device=left.device)
    done = torch.zeros(s, count, n, device=left.device)
    order = []
    for k in range(count):
        adds = left > EXHAUSTED
        size = torch.where(adds, left, inf)
        pick = torch.where(adds, twice + size.log(), later).add_(taken).argmax(1, keepdim=True)
        order.append(pick)
        taken.scatter_(1, pick, -inf)
        chosen = done[:, :k].gather(2, pick.unsqueeze(1).expand(-1, k, -1))  # (S, k, 1)
        row = gram.row(pick).unsqueeze(1)
        row = torch.baddbmm(row, chosen.transpose(1, 2), done[:, :k], alpha=-1).squeeze(1)
        scale = size.gather(1, pick).rsqrt_()  # zero where the size is infinite
        step = torch.mul(row, scale, out=done[:, k])
        left = torch.addcmul(left, step, step, value=-1)
    return torch.cat(order, 1)


def _eliminate(log_quality: Tensor, later: Tensor, products: Tensor, count: int) -> Tensor:
    """The same picks by taking each out of the whole of L: few operations a step, but N^2 of work.

    L is scaled so that the largest r is 1; what is e^43 below it underflows and counts as r = 0.
    """
    best = log_quality.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).min)
    r = (log_quality - best).exp()
    left = products.mul_(r.unsqueeze(1)).mul_(r.unsqueeze(2))  # (S, N, N): what the choice leaves of L
    size, least = left.diagonal(0, 1, 2), EXHAUSTED * r.square()
    order, worth = [], []
    for _ in range(count):
        most, pick = torch.where(size > least, size, 0.0).max(1, keepdim=True)
        order.append(pick)
        worth.append(most)
        row = rows(left, pick)
        # Once nothing is left this divides by zero, and no size is above `least` any more.
        left.baddbmm_(row.transpose(1, 2), row / most.unsqueeze(2), alpha=-1)
    index, adds = torch.cat(order, 1), torch.cat(worth, 1) > 0
    taken = torch.zeros_like(later).scatter_add(1, index, adds.float())
    rest = later.masked_fill(taken > 0, -float("inf")).argsort(dim=1, descending=True, stable=True)
    number = (~adds).cumsum(1).sub_(1).clamp_min_(0)
    return torch.where(adds, index, rest.gather(1, number))
