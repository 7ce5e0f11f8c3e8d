"""What is dropped goes into the nearest token that is kept, where one is near."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import LongTensor, Tensor

from .similarity import BLOCK_BYTES


def nearest_kept(
    x: Tensor, keep: Tensor, least: float, plain: Tensor | None = None, block_bytes: int = BLOCK_BYTES
) -> LongTensor:
    """(G, N, D) unit rows, (G, N) mask -> (G, N) owner of each: itself if kept, the kept token of the largest cosine
    (ties to the lower index) if that is above `least`, else -1. Tokens of `plain` (N,) neither take nor are taken."""
    groups, n, _ = x.shape
    hidden = ~keep if plain is None else ~keep | plain
    step = max(1, block_bytes // (4 * groups * n))
    own = torch.arange(n, device=x.device).expand(groups, n)
    best, index = [], []
    for i in range(0, n, step):
        block = torch.bmm(x[:, i : i + step], x.transpose(1, 2)).masked_fill_(hidden.unsqueeze(1), -2.0)
        here = block.argmax(2)
        best.append(block.gather(2, here.unsqueeze(2)).squeeze(2))
        index.append(here)
    taken = torch.cat(best, 1) > least
    if plain is not None:
        taken &= ~plain
    return torch.where(keep, own, torch.where(taken, torch.cat(index, 1), -1))  # type: ignore[return-value]


def centred_mean(owner: Tensor, share: float) -> Callable[[Tensor], Tensor]:
    """(S, N) owners or -1 -> a linear map (S, N, D) -> (S, N, D): a kept token with n others becomes

        w own + (1 - w) mean of the others,    w = max(1 / (n + 1), share)

    which is an average of all as long as that leaves the token its share. Other rows mean nothing.
    """
    if share == 1:
        return lambda values: values
    owner = torch.where(owner < 0, torch.arange(owner.shape[1], device=owner.device), owner)
    one = torch.ones_like(owner, dtype=torch.float32)
    part = torch.zeros_like(one).scatter_add(1, owner, one).clamp_min_(1).reciprocal_().unsqueeze(2)
    # The same from the mean of all, own included: own + (mean - own) min(1, (1 - share) (n + 1) / n).
    toward = (1 - part).reciprocal_().mul_(1 - share).clamp_max_(1)

    def merge(values: Tensor) -> Tensor:
        x = values.float()
        sums = torch.zeros_like(x).scatter_add_(1, owner.unsqueeze(2).expand_as(x), x)
        return torch.lerp(x, sums.mul_(part), toward).to(values.dtype)

    return merge
