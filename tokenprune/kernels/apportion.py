"""Sharing a total over the parts of each image by largest remainder, on the device."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor

from ..errors import BudgetError

GRAIN = 2.0**-30
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
    wide = torch.float32 if weights.device.type == "mps" else torch.float64
    w = weights.to(wide).clamp_min(0)
    room = torch.as_tensor(cap, device=weights.device).expand(s, parts) - least
    rest = torch.full((s, 1), total - parts * least, device=weights.device)
    heavy = w > 0
    given = _fill(w, torch.where(heavy, room, 0), rest)
    given = given + _fill((~heavy).to(wide), torch.where(heavy, 0, room), rest - given.sum(1, keepdim=True))
    return given + least  # type: ignore[return-value]


def _fill(weights: Tensor, room: Tensor, rest: Tensor) -> Tensor:
    """(S, T), (S, T), (S, 1) -> (S, T): `rest`, or all the room there is, in proportion up to the room."""
    rest = torch.minimum(rest, room.sum(1, keepdim=True))
    weights = torch.where(room > 0, weights, 0.0)
    # In the order in which parts fill up as the level rises: the level when the first j are full is the right one for
    # the least j whose next part it does not overfill. That is the usual repetition, all at once.
    full_at = torch.where(weights > 0, room / weights, torch.inf)
    full_at, order = full_at.sort(dim=1, stable=True)
    w, r = weights.gather(1, order), room.gather(1, order).to(weights.dtype)
    open_weight = w.flip(1).cumsum(1).flip(1)
    level = (rest - (r.cumsum(1) - r)) / open_weight
    fits = (open_weight > 0) & (level <= full_at)
    level = torch.where(fits, level, -torch.inf).amax(1, keepdim=True)
    level = torch.where(fits.any(1, keepdim=True), level, torch.inf)  # all of them full
    ideal = torch.where(weights > 0, torch.minimum(weights * level, room.to(weights.dtype)), 0.0)
    whole = torch.minimum((ideal + GRAIN).floor().long(), room)
    left = rest - whole.sum(1, keepdim=True)
    remainder = ((ideal - whole) / GRAIN).round()
    remainder = torch.where(whole < room, remainder, -torch.inf)
    place = remainder.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return whole + (place < left)
