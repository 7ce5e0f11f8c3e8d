"""Evenly spread choice: the baseline without any information about the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import TokenPruneError
from ..kernels import token_cells
from ..tokens import Selection, VisualTokens
from .base import Reducer, register


@register("uniform")
@dataclass(frozen=True)
class Uniform(Reducer):
    """Evenly spread tokens: a uniform stride in raster order, or over the grid.

    over="raster" (the baseline of the papers): index_i = floor(i (N - 1) / (keep - 1)) for i = 0 .. keep - 1, in
    integers, so both ends are kept; keep = 1 takes the middle. Separators are members of N and count. A stride
    that divides the grid's width keeps whole columns.
    over="grid": the token nearest to the centre of each of the cells that `pool` averages, which is even in both
    directions, inside every frame and crop.
    over="frames": of as few evenly spread frames of a clip as hold `keep` tokens, a stride as above; the other frames
    are gone. Frame i of f is floor(i t / f), as clips are sampled. Pictures are taken in raster order.
    """

    over: str = "raster"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.over not in ("raster", "grid", "frames"):
            raise TokenPruneError(f"over={self.over!r}: 'raster', 'grid' or 'frames'")

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        s, n, _ = tokens.shape
        if self.over == "grid" and tokens.coords is not None:
            index = token_cells(tokens, keep).slot
        elif self.over == "frames" and tokens.grid is not None:
            frames = tokens.grid[0]
            size = n // frames  # with the separators of its rows; one at the very end stands alone
            shown = min(frames, -(-keep // size))
            if keep > shown * size:
                index = _stride(keep, n, tokens.features)
            else:
                place = _stride(keep, shown * size, tokens.features)
                index = place // size * frames // shown * size + place % size
        else:
            index = _stride(keep, n, tokens.features)
        return Selection.of_indices(index.expand(s, -1), n)


def _stride(keep: int, n: int, like: Tensor) -> Tensor:
    """(keep,) indices from the first to the last of n; the middle one where only one is kept."""
    if keep == 1:
        return torch.full((1,), (n - 1) // 2, device=like.device)
    return torch.arange(keep, device=like.device) * (n - 1) // (keep - 1)
