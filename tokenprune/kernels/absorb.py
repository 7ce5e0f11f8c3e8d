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
    """(S, N) owners -> a linear map (S, N, D) -> (S, N, D): a kept token with n others becomes

        w own + (1 - w) mean of the others,    w = max(1 / (n + 1), share)

    which is an average of all as long as that leaves the token its share. Sums run in float32.
    """
    s, n = owner.shape
    own = torch.arange(n, device=owner.device).expand(s, n)
    base = n * torch.arange(s, device=owner.device).unsqueeze(1)
    place = (torch.where(owner < 0, own, owner) + base).view(-1)
    other = ((owner >= 0) & (owner != own)).float().view(-1)
    count = torch.zeros(s * n, device=owner.device).index_add(0, place, other)
    w = (1 / (count + 1)).clamp_min(share)
    given = ((1 - w) / count.clamp_min(1)).index_select(0, place)
    weight = torch.where(other > 0, given, w).unsqueeze(1)

    def merge(values: Tensor) -> Tensor:
        flat = values.flatten(0, 1).float() * weight
        return torch.zeros_like(flat).index_add_(0, place, flat).view_as(values).to(values.dtype)

    return merge
