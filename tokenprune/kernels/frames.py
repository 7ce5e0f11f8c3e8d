"""Which tokens of a clip lie in the same frame, and which lie at the same place of an earlier one."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor
from torch.nn.functional import pad

from ..tokens import NEWLINE

PLACE_BITS, TIME_BITS = 16, 20


def is_patch(coords: Tensor) -> Tensor:
    """(N, 4) -> (N,) bool: not a separator."""
    return coords[:, 2] != NEWLINE


def frame_numbers(coords: Tensor) -> LongTensor:
    """(N, 4) -> (N,): 0 for the first frame, one more where part or t changes; a separator goes with the patch before.

    Numbers are dense also where an earlier cut took whole frames away.
    """
    index = torch.arange(coords.shape[0], device=coords.device)
    before = torch.where(is_patch(coords), index, 0).cummax(0).values
    at = coords.index_select(0, before)[:, :2]
    return pad((at[1:] != at[:-1]).any(1).cumsum(0), (1, 0))  # type: ignore[return-value]


def latest_at(coords: Tensor, t: Tensor) -> LongTensor:
    """(N, 4), (N,) frames -> (N,): index of the last token at each token's own part, y, x whose frame is at most t.

    -1 where there is none, and for separators. With t the frame before, that is the same place one frame earlier,
    or further back where an earlier cut took that token away.
    """
    part, own, y, x = coords.unbind(1)
    # Places of separators are below zero, as their coordinates are: they find nothing and nothing finds them.
    place = torch.add(x, torch.add(y, part, alpha=1 << PLACE_BITS), alpha=1 << PLACE_BITS)
    key, order = torch.add(own, place, alpha=1 << TIME_BITS).sort(stable=True)
    wanted = torch.add(t, place, alpha=1 << TIME_BITS)
    slot = torch.searchsorted(key, wanted, right=True) - 1  # -1, which reads the last one, if all come later
    since = wanted - key[slot]
    return torch.where((since >= 0) & (since <= t), order[slot], -1)  # type: ignore[return-value]


def one_before(coords: Tensor | None, like: Tensor) -> LongTensor:
    """(N, 4), (S, N, D) -> (N,): each token's place in the nearest earlier frame, -1 where there is none."""
    if coords is None:
        return torch.full(like.shape[1:2], -1, device=like.device)  # type: ignore[return-value]
    return latest_at(coords, coords[:, 1] - 1)
