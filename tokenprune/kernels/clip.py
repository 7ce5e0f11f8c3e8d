"""Where the frames of a clip lie among its tokens, known without reading a coordinate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import LongTensor, Tensor

from ..tokens import NEWLINE


class Clip(NamedTuple):
    """N tokens as `frames` times `size` of the frames in turn, and `tail` separators that belong to none."""

    frames: int
    size: int
    tail: int
    order: LongTensor | None  # (N,) the tokens frame by frame, then the tail; None: they stand so
    last: Tensor | None  # (N,) separators inside a single frame

    def lay_out(self, values: Tensor) -> Tensor:
        """(S, N, ...) -> (S, frames, size, ...)."""
        if self.order is not None:
            values = values.index_select(1, self.order)
        return values[:, : self.frames * self.size].unflatten(1, (self.frames, self.size))

    def put_back(self, values: Tensor, tail: Tensor) -> Tensor:
        """(S, frames size) and (S, tail) -> (S, N) in the tokens' own order."""
        both = torch.cat([values, tail], 1)
        return both if self.order is None else torch.empty_like(both).index_copy_(1, self.order, both)

    def owners(self, owner: Tensor, tail: Tensor) -> Tensor:
        """(S, frames, size) owners within each frame and (S, tail) mask of the tail -> (S, N) owners among all."""
        first = torch.arange(self.frames, device=owner.device).mul(self.size).unsqueeze(1)
        inside = torch.where(owner < 0, -1, owner + first).flatten(1)
        own = torch.arange(self.tail, device=owner.device) + self.frames * self.size
        tail = torch.where(tail, own, -1)
        if self.order is not None:
            inside, tail = (torch.where(o < 0, -1, self.order[o.clamp_min(0)]) for o in (inside, tail))
        return self.put_back(inside, tail)


def find_frames(n: int, grid: tuple[int, int, int] | None, coords: Tensor | None) -> Clip:
    """From the number of tokens, their grid and (N, 4) coordinates.

    Without a grid (crops of one picture; what an earlier cut has left) all is one frame, and so is a grid of one.
    Separators are then members of the frame, marked in `last`.
    """
    if grid is None or grid[0] == 1:
        separators = grid is None or n > grid[1] * grid[2]
        last = None if coords is None or not separators else coords[:, 2] == NEWLINE
        return Clip(1, n, 0, None, last)
    t, size = grid[0], grid[1] * grid[2]
    tail, order = n - t * size, None
    if tail and coords is not None:
        order = torch.where(coords[:, 2] == NEWLINE, t, coords[:, 1]).argsort(stable=True)
    return Clip(t, size, tail, order, last=None)  # type: ignore[arg-type]
