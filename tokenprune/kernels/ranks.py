"""Places inside groups of tokens whose sizes only the device knows."""

from __future__ import annotations

import torch
from torch import BoolTensor, LongTensor, Tensor


def evenly(rank: Tensor, size: Tensor, count: Tensor | int) -> BoolTensor:
    """Ranks 0 .. size - 1 -> the ones among `count` evenly spread: rank = floor(i (size - 1) / (count - 1)) for some i.

    Shapes broadcast; int64. Both ends are taken, a count of 1 takes the middle, one of `size` or more takes all.
    """
    last, gaps = size - 1, count - 1
    # i (size - 1) has to lie in [rank gaps, rank gaps + gaps): the first multiple from there on is so far away.
    several = (rank * -gaps).remainder(last.clamp_min(1)) < gaps
    if isinstance(count, int):
        return several if count != 1 else rank == last // 2  # type: ignore[return-value]
    return torch.where(count == 1, rank == last // 2, several)  # type: ignore[return-value]


def thinned(member: Tensor, keep: int) -> BoolTensor:
    """(N,) bool -> (N,): `keep` of its members, evenly spread; all of them where they are no more."""
    seen = member.cumsum(0)
    return member & evenly(seen - 1, seen[-1:], keep)  # type: ignore[return-value]


def group_rank(priority: Tensor, group: Tensor) -> LongTensor:
    """(S, N) priorities, (S, N) groups in [0, N) -> (S, N) how many of its group come first; ties by index."""
    order = priority.argsort(dim=1, descending=True, stable=True)
    group, by_group = group.gather(1, order).sort(dim=1, stable=True)
    line = torch.arange(group.shape[1], device=group.device)
    place = line - torch.searchsorted(group, group)
    return place.scatter(1, order.gather(1, by_group), place)  # type: ignore[return-value]


def in_turns(rank: Tensor, group: Tensor, keep: int) -> LongTensor:
    """(S, N) ranks inside (S, N) groups -> (S, keep): every group's first, then every group's second, and so on.

    So groups get equal shares, capped by their sizes, that sum to `keep`; what does not divide goes to lower groups.
    A rank below zero comes before all.
    """
    key = torch.add(group, rank, alpha=rank.shape[1] + 1)
    return key.argsort(dim=1, stable=True)[:, :keep]  # type: ignore[return-value]


def even_ranks(group: Tensor, keep: int) -> LongTensor:
    """(S, N) groups -> (S, N): 0 for those evenly spread over each group, as many as `in_turns` gives it, else 1."""
    one = torch.ones_like(group)
    line = group_rank(torch.zeros_like(group), group)
    size = torch.zeros_like(group).scatter_add(1, group, one)
    given = group.gather(1, in_turns(line, group, keep))
    share = torch.zeros_like(group).scatter_add(1, given, torch.ones_like(given))
    return 1 - evenly(line, size.gather(1, group), share.gather(1, group)).long()  # type: ignore[return-value]


def chosen_first(scores: Tensor, chosen: Tensor) -> LongTensor:
    """(S, N) scores, (S, N) bool -> (S, N) priorities: what was chosen by score, then the rest by score."""
    place = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return scores.shape[1] * chosen.long() - place  # type: ignore[return-value]
