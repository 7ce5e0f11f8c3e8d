"""Evenly spread choice: the baseline without any information about the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import TokenPruneError
from ..kernels import grid_cells
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
    """

    over: str = "raster"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.over not in ("raster", "grid"):
            raise TokenPruneError(f"over={self.over!r}: 'raster' or 'grid'")

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        s, n, _ = tokens.shape
        if self.over == "grid" and tokens.coords is not None:
            index = grid_cells(tokens.coords, keep).slot
        elif keep == 1:
            index = torch.full((1,), (n - 1) // 2, device=tokens.features.device)
        else:
            index = torch.arange(keep, device=tokens.features.device) * (n - 1) // (keep - 1)
        return Selection.of_indices(index.expand(s, -1), n)
