"""Sharing a total over the parts of each image by largest remainder, on the device."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor

from ..errors import BudgetError

DIGITS = 9
GRAIN = 10.0**-DIGITS
"""Two remainders nearer than this are a tie: they differ by rounding."""


def largest_remainder(weights: Tensor, total: int, cap: int | Tensor, least: int = 0) -> LongTensor:
    """(S, T) weights >= 0 -> (S, T) counts in [least, cap] that sum to exactly `total` in every row.

    Every part gets `least`; the rest goes in proportion to the weights, what a full part cannot take to the others
    in proportion, and what whole numbers leave over to the largest remainders, ties to the lower index. Parts of
    weight zero get something only when all others are full, and then alike. `cap` is one number or (T,) or (S, T).
    The operations are a function of the shapes alone, and nothing is read back.

    Raises `BudgetError` where plain numbers tell that it cannot be; a tensor of caps has to leave room for `total`.
    """
    s, parts = weights.shape
    above = parts * cap if isinstance(cap, int) else total
    if not parts * least <= total <= above or (isinstance(cap, int) and least > cap):
        raise BudgetError(f"cannot share {total} over {parts} parts of {least} to {cap} each")
    if parts == 1:
        return torch.full_like(weights, total, dtype=torch.long)  # type: ignore[return-value]
    weights = weights.to(torch.float32 if weights.device.type == "mps" else torch.float64)
    # A weight that no other one is as small as gets its share when all heavier parts are full.
    weights = weights.clamp_min(1e-30 if weights.dtype == torch.float32 else 1e-290)
    room = torch.full_like(weights, cap) if isinstance(cap, int) else cap.expand(s, parts)
    room = room - least if least else room
    rest = total - parts * least
    # In the order in which parts fill up as the level of weight * level rises, the last one first: when those behind
    # a place are full, the level is the open part of `rest` over the weights up to there. What is given is concave in
    # the level, so the right one is the largest of these.
    order = (room / weights).argsort(dim=1, descending=True, stable=True)
    held = room.gather(1, order).cumsum(1)
    level = (held - (held[:, -1:] - rest)) / weights.gather(1, order).cumsum(1)
    ideal = torch.minimum(weights * level.amax(1, keepdim=True), room)
    whole = (ideal + GRAIN).floor()
    remainder = (ideal - whole).round(decimals=DIGITS)  # of a part that is full, not above zero
    place = remainder.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    given = whole + (place < rest - whole.sum(1, keepdim=True))
    return (given + least).long() if least else given.long()  # type: ignore[return-value]
