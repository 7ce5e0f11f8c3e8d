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


class Round(NamedTuple):
    """One round over n tokens: r of them went into others."""

    slot: LongTensor  # (S, n - r) the tokens left, ascending
    label: LongTensor  # (S, n) place in `slot` of the token that each is in now
    source: LongTensor  # (S, r) the tokens that went, strongest link first


def merge_round(x: Tensor, r: int, sort: Tensor | None = None, block_bytes: int = BLOCK_BYTES) -> Round:
    """(S, n, C) -> what becomes of n tokens in raster order when the r <= n / 2 strongest links are merged.

    Tokens go alternately into a (even places) and b (odd places); a link joins each a to the b of largest cosine.
    sort: (S, n); links between different sorts come after all others. Ties to the lower index.
    """
    s, n, _ = x.shape
    sorts = None if sort is None else (sort[:, 0::2], sort[:, 1::2])
    x = unit(x)
    best, where = best_match(x[:, 0::2], x[:, 1::2], sorts, block_bytes)
    order = best.argsort(dim=1, descending=True, stable=True)
    source, target = 2 * order[:, :r], 2 * where.gather(1, order[:, :r]) + 1
    places = torch.arange(n, device=x.device).expand(s, -1)
    slot = torch.cat([2 * order[:, r:], places[:, 1::2]], 1).sort(dim=1).values
    rank = torch.zeros_like(places).scatter(1, slot, places[:, : n - r])
    label = rank.gather(1, places.scatter(1, source, target))
    return Round(slot, label, source)  # type: ignore[arg-type]


def bipartite_merge(
    x: Tensor,
    keep: int,
    share: float = 0.5,
    sort: Tensor | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Merged:
    """(S, N, C) -> groups of tokens that look alike, one group for each of the `keep` left of every image.

    `merge_round` again and again, with r from `merge_rounds`: the group of a joins that of b, which keeps its slot. In
    later rounds a group is compared by the mean over all its members, as a size-weighted mean of means is. The
    operations are functions of the shapes alone. sort: (S, N). On a GPU the sums of groups are added in any order, so
    that links equal to the last bits may go either way.
    """
    s, n, _ = x.shape
    label = ids = torch.arange(n, device=x.device).expand(s, -1)
    sums = x.float()  # a mean's cosine is its sum's
    for r in merge_rounds(n, keep, share):
        slot, new, source = merge_round(sums, r, None if sort is None else sort.gather(1, ids), block_bytes)
        target = new.gather(1, source).unsqueeze(2).expand(-1, -1, x.shape[2])
        sums = rows(sums, slot).scatter_add(1, target, rows(sums, source))
        ids, label = ids.gather(1, slot), new.gather(1, label)
    return Merged(ids, label)  # type: ignore[arg-type]
