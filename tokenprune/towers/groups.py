"""Which tokens of a tower went together, and the two ways between the sequence outside and the one inside."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import LongTensor, Tensor

from ..kernels import ranking
from ..kernels.bipartite import merge_round


def pick(x: Tensor, index: Tensor) -> Tensor:
    """(B, N, D), (B, K) -> (B, K, D). Whole rows are copied, several times faster than `gather` on a CPU."""
    b, n, d = x.shape
    start = n * torch.arange(b, device=x.device).unsqueeze(1)
    return x.reshape(b * n, d).index_select(0, (index + start).flatten()).view(b, -1, d)


@dataclass(eq=False)
class Groups:
    """L tokens outside, P of them inside, those of the prefix alone in their groups. Tokens stay in raster order."""

    slot: LongTensor  # (B, P) the place outside of each token inside, ascending
    label: LongTensor  # (B, L) the place inside of each token outside
    size: Tensor  # (B, P) float32, how many each stands for

    @classmethod
    def alone(cls, b: int, n: int, device: torch.device) -> Groups:
        """Nothing merged yet."""
        each: LongTensor = torch.arange(n, device=device).expand(b, -1)  # type: ignore[assignment]
        return cls(each, each, torch.ones(b, n, device=device))

    def shorten(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, P, D)."""
        return pick(x, self.slot)

    def lengthen(self, x: Tensor) -> Tensor:
        """(B, P, D) -> (B, L, D): every member has its group's value."""
        return pick(x, self.label)


@dataclass(eq=False)
class Merge:
    """One block's merge of P tokens into P - r, and the groups after it."""

    after: Groups
    slot: Tensor  # (B, P - r) of the P tokens those left
    label: Tensor  # (B, P) the group of each
    source: Tensor  # (B, r) those that went into another
    share: Tensor  # (B, P) what part of its group each is

    def means(self, x: Tensor) -> Tensor:
        """(B, P, D) -> (B, P - r, D) means by size, at least in float32 inside; what is alone stays, to the bit."""
        b, count = self.slot.shape
        wide = torch.promote_types(x.dtype, torch.float32)
        out = pick(x, self.slot).to(wide) * self.share.gather(1, self.slot).unsqueeze(2)
        moved = pick(x, self.source).to(wide) * self.share.gather(1, self.source).unsqueeze(2)
        start = count * torch.arange(b, device=x.device).unsqueeze(1)
        target = (self.label.gather(1, self.source) + start).flatten()
        out = out.flatten(0, 1).index_add(0, target, moved.flatten(0, 1))
        return out.view(b, count, -1).to(x.dtype)

    def spread(self, x: Tensor) -> Tensor:
        """(B, P - r, D) -> (B, P, D)."""
        return pick(x, self.label)


def merge(groups: Groups, keys: Tensor, prefix: int, r: int) -> Merge:
    """(B, P, C) keys -> the r most similar pairs of patches join; the first `prefix` tokens take no part."""
    with ranking(keys):
        found = merge_round(keys[:, prefix:], r)
        b, p = keys.shape[:2]
        first = torch.arange(prefix, device=keys.device).expand(b, -1)
        slot, label = torch.cat([first, found.slot + prefix], 1), torch.cat([first, found.label + prefix], 1)
        size = torch.zeros(b, p - r, device=keys.device).scatter_add(1, label, groups.size)
        share = groups.size / size.gather(1, label)
        after = Groups(groups.slot.gather(1, slot), label.gather(1, groups.label), size)  # type: ignore[arg-type]
        return Merge(after, slot, label, found.source + prefix, share)
