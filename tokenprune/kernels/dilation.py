"""Growing a set of visual tokens over the grids they come from, and on to where the next lines begin."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tokens import NEWLINE
from .decode import places

_LINE, _FRAME, _PART, _NOWHERE = 1 << 16, 1 << 32, 1 << 48, 1 << 62


def reach(coords: Tensor, radius: int) -> Tensor:
    """(B, V, 4) part, t, y, x -> (B, V, n) int32, the tokens each one spreads to; -1 where there is none.

    Those of its own part and frame at most `radius` rows and columns away, itself among them, and the first column
    of the next `radius` rows: n = (2 radius + 1)^2 + radius. Parts are those of all a row's images, so they must
    be numbered through. A separator stands behind the last token of its line. Filler has part -1.
    """
    index = torch.arange(coords.shape[1], device=coords.device).expand(coords.shape[:2])
    real = coords[..., 0] >= 0
    before = torch.where(real & (coords[..., 2] != NEWLINE), index, -1).cummax(1).values.clamp(min=0)
    part, t, y, x = coords.gather(1, before[..., None].expand(-1, -1, 4)).unbind(-1)
    # One number a place. A step over an edge borrows and ends where no grid is: sides are far below 2**16.
    line = part * _PART + t * _FRAME + y * _LINE
    place = line + x + index - before
    known, order = place.masked_fill(~real, _NOWHERE).sort(dim=1, stable=True)

    def find(wanted: Tensor) -> Tensor:
        flat = wanted.flatten(1)
        slot = torch.searchsorted(known, flat).clamp(max=known.shape[1] - 1)
        found = (known.gather(1, slot) == flat) & (flat >= 0)
        return order.gather(1, slot).masked_fill(~found, -1).to(torch.int32).view(wanted.shape)

    across = torch.arange(-radius, radius + 1, device=coords.device)
    rows = [find((place + dy * _LINE)[..., None] + across) for dy in range(-radius, radius + 1)]
    ahead = torch.arange(1, radius + 1, device=coords.device) * _LINE
    return torch.cat([*rows, find(line[..., None] + ahead)], dim=-1).masked_fill(~real[..., None], -1)


def spread(chosen: Tensor, table: Tensor, most: int) -> Tensor:
    """(B, V) bool, of which at most `most` a row are True -> (B, V) bool: all that `reach`'s table leads to."""
    batch, v, n = table.shape
    picked = places(chosen, most)[..., None]
    reached = (
        table.gather(1, picked.clamp(min=0).expand(-1, -1, n)).masked_fill(picked < 0, -1).flatten(1).long()
    )
    out = torch.zeros(batch, v + 1, dtype=torch.bool, device=chosen.device)
    return out.scatter_(1, torch.where(reached < 0, v, reached), True)[:, :v]


def nearby(state: dict[str, Tensor], valid: Tensor, most: int, refresh: int, theta: float) -> Tensor:
    """(B, V) tokens worth reading after what `remember` wrote: near the last choice, chosen lately, or due anyway."""
    near = spread(state["last"], state["reach"], most) | state["recent"]
    due = (state["visits"] % refresh == 0) | (state["captured"] < theta) | state["clip"]
    return valid & (near | due[:, None])


def remember(
    state: dict[str, Tensor], scores: Tensor, chosen: Tensor, read: Tensor, valid: Tensor, radius: int
) -> None:
    """Note a choice (B, G, V) made by scores (B, G, V) among the tokens `read` (B, V), for the next `nearby`.

    `recent` gathers choices until everything is read; `captured` is the chosen share of what was read, of the group
    with least. Rows with more than one frame are `clip`s: what moves has no neighbourhood.
    """
    if "reach" not in state:
        state["reach"] = reach(state["coords"], radius)
        state["clip"] = (state["coords"][..., 1] > 0).any(1)
    last = chosen.any(1)
    mass = (scores * read[:, None]).sum(-1).clamp(min=torch.finfo(scores.dtype).tiny)
    state["captured"] = ((scores * chosen).sum(-1) / mass).amin(1)
    older = state.get("recent", last) & (read != valid).any(1, keepdim=True)
    state["last"], state["recent"] = last, last | older
    state["visits"] = state.get("visits", torch.zeros_like(state["captured"], dtype=torch.long)) + 1
