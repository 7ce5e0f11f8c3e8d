"""Soft resampling of windows along a row: what of TextHawk2's resampler needs no training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..kernels import ranking, token_cells, unit
from ..kernels.cells import plain_cells
from ..kernels.framing import coords_of, plain_grid
from ..tokens import NEWLINE, Selection, VisualTokens
from ._fields import check_ints, check_numbers
from .base import Reducer, register


@register("soft_resample")
@dataclass(frozen=True)
class SoftResample(Reducer):
    """Windows along a row, each resampled with its own mean as query: pooling that follows the majority.

    After TextHawk2, Yu et al., 2024, arXiv:2410.05261, whose resampler proposes its queries from the picture itself.
    That one is trained; this is our derivation of it, not a published method. With x (N, D) the visual tokens, in
    windows w of about N / keep of them next to each other on one row, because reading order is horizontal:

        p_w = mean of x_j over the window      y_w = sum_j softmax_j(cos(p_w, x_j) / tau) x_j

    over the j of the window and up to `reach` columns to either side on the same row of the same frame and crop.
    A large tau is mean pooling over them; a small one takes the token most like the mean. y_w lives in the window's
    central token; its other members are merged into it.

    Rows share the windows by cumulative rounding (`grid_cells`), so counts are exact; with fewer windows than rows a
    window is as many whole rows. Row separators are not averaged with patches: one that shares its window with a patch
    is dropped, and windows of separators alone, only near keep = N, keep their mean. The rearrangement of TextHawk2
    (channels concatenated, then projected) needs its trained projector and is left out. Traps: at keep = N windows
    are single tokens, which `reach` still mixes with like neighbours; projected features of one picture are often
    nearly parallel, and then tau = 0.05 is close to a mean.
    """

    tau: float = 0.05
    reach: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, tau=(1e-4, 1e4))
        check_ints(self, reach=(0, 64))

    def sides(self, coords: Tensor, cell: Tensor, weight: Tensor | None, keep: int) -> tuple[Tensor, Tensor]:
        """(J, keep) tokens beside each window and whether they count; J = 2 reach, or 2 that never do."""
        n = cell.shape[0]
        index = torch.arange(n, device=cell.device)
        weight = torch.ones_like(index) if weight is None else weight
        ends = torch.full((2, keep), n, device=cell.device)
        ends[1] = -1
        first = ends[0].scatter_reduce(0, cell, torch.where(weight > 0, index, n), "amin")
        last = ends[1].scatter_reduce(0, cell, torch.where(weight > 0, index, -1), "amax")
        offset = torch.arange(1, max(self.reach, 1) + 1, device=cell.device).unsqueeze(1)
        end = torch.stack([first, last]).unsqueeze(1)  # (2, 1, keep)
        place = torch.stack([first - offset, last + offset])  # (2, reach, keep)
        inside = (place >= 0) & (place < n) & (offset <= self.reach)
        place = place.clamp(0, n - 1)
        same_row = (coords[place, :3] == coords[end, :3]).all(3) & (coords[end, 2] != NEWLINE)
        counts = inside & same_row & (cell[place] != torch.arange(keep, device=cell.device))
        return place.flatten(0, 1), counts.flatten(0, 1)

    def plain_sides(self, width: int, cell: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
        """The same of a whole grid of rows of `width` tokens, on the host."""
        index = np.arange(len(cell))
        ends = np.zeros((2, keep), dtype=np.int64)
        ends[0, cell[::-1]], ends[1, cell] = index[::-1], index  # of equal places the last one written stays
        offset = np.arange(1, max(self.reach, 1) + 1)[:, None]
        place = np.concatenate([ends[0] - offset, ends[1] + offset])
        side, offset = np.repeat(ends, len(offset), 0), np.tile(offset, (2, 1))
        counts = (place // width == side // width) & (offset <= self.reach)
        place = place.clip(0, len(cell) - 1)
        return place, counts & (cell[place] != np.arange(keep))

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        s, n, _ = tokens.shape
        cells = token_cells(tokens, keep, rows=1)
        cell, slot, weight = cells
        if (grid := plain_grid(tokens)) is not None:
            made = self.plain_sides(grid[2], plain_cells(grid, keep, 1)[0], keep)
            place, counts = (torch.from_numpy(a).to(cell.device, non_blocking=True) for a in made)
        else:
            place, counts = self.sides(coords_of(tokens), cell, weight, keep)
        with ranking(tokens.features):
            query, x = unit(cells.means(tokens.features.float())), unit(tokens.features)
            own = (x * query.index_select(1, cell)).sum(2)  # (S, N)
            if weight is not None:
                own = own.masked_fill(weight == 0, -float("inf"))
            side = torch.stack([(query * x.index_select(1, j)).sum(2) for j in place], 1)  # (S, J, keep)
            side = side.masked_fill(~counts, -float("inf"))
            top = side.amax(1).scatter_reduce(1, cell.expand(s, -1), own, "amax")  # (S, keep)
            own = ((own - top.index_select(1, cell)) / self.tau).exp()
            side = ((side - top.unsqueeze(1)) / self.tau).exp()
            mass = side.sum(1).index_add(1, cell, own)
            own = (own / mass.index_select(1, cell)).unsqueeze(2)
            side = (side / mass.unsqueeze(1)).unsqueeze(3)

        def merge(values: Tensor) -> Tensor:
            wide = values.float()
            out = torch.zeros(s, keep, wide.shape[2], device=wide.device).index_add(1, cell, wide * own)
            for i, j in enumerate(place):
                out = torch.addcmul(out, wide.index_select(1, j), side[:, i])
            return out.to(values.dtype).index_select(1, cell)

        owner = cells.owner().expand(s, -1)
        return Selection.of_indices(
            slot.expand(s, -1), n, features=merge(tokens.features), owner=owner, merge=merge
        )
