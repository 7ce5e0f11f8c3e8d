"""Token merging by bipartite matching, repeated until exactly K tokens are left."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import LongTensor, Tensor

from .assign import best_match
from .clusters import rows
from .similarity import BLOCK_BYTES, unit


@lru_cache(maxsize=4096)
def merge_rounds(n: int, keep: int, share: float = 0.5) -> tuple[int, ...]:
    """How many tokens each round merges away on the way from `n` to exactly `keep`: a share, at most half."""
    rounds = []
    while n > keep:
        rounds.append(min(max(1, math.floor(share * n)), n // 2, n - keep))
        n -= rounds[-1]
    return tuple(rounds)


class Merged(NamedTuple):
    """What became of N tokens."""

    slot: LongTensor  # (S, K) the tokens that others went into, ascending
    label: LongTensor  # (S, N) place in `slot` of each token's own, in [0, K)


def bipartite_merge(
    x: Tensor,
    keep: int,
    share: float = 0.5,
    sort: Tensor | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Merged:
    """(S, N, C) -> groups of tokens that look alike, one group for each of the `keep` left of every image.

    A round splits the n tokens left, in raster order, alternately into a (even places) and b (odd places), links
    each a to the b of largest cosine and merges the r strongest links: the group of a joins that of b, which keeps
    its slot. In later rounds a group is compared by the mean over all its members, as a size-weighted mean of means
    is. r comes from `merge_rounds`, so the operations are functions of the shapes alone. sort: (S, N); links between
    different sorts come after all others. Ties to the lower index, of links and of partners. On a GPU the sums of
    groups are added in any order, so that links equal to the last bits may go either way.
    """
    s, n, _ = x.shape
    owner = ids = torch.arange(n, device=x.device).expand(s, -1)
    sums = x.float()  # a mean's cosine is its sum's
    for r in merge_rounds(n, keep, share):
        a, b = ids[:, 0::2], ids[:, 1::2]
        sorts = None if sort is None else (sort.gather(1, a), sort.gather(1, b))
        best, where = best_match(unit(sums[:, 0::2]), unit(sums[:, 1::2]), sorts, block_bytes)
        order = best.argsort(dim=1, descending=True, stable=True)
        source, stay = order[:, :r], order[:, r:]
        target = where.gather(1, source)
        moved = torch.arange(n, device=x.device).expand(s, -1)
        owner = moved.scatter(1, a.gather(1, source), b.gather(1, target)).gather(1, owner)
        joined = sums[:, 1::2].scatter_add(
            1, target.unsqueeze(2).expand(-1, -1, x.shape[2]), rows(sums[:, 0::2], source)
        )
        ids, raster = torch.cat([a.gather(1, stay), b], 1).sort(dim=1)
        sums = rows(torch.cat([rows(sums[:, 0::2], stay), joined], 1), raster)
    place = torch.arange(keep, device=x.device).expand(s, -1)
    label = torch.zeros_like(owner).scatter(1, ids, place).gather(1, owner)
    return Merged(ids, label)  # type: ignore[arg-type]
