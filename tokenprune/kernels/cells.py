"""Cutting a picture, its crops or a clip into exactly K compact cells, from coordinates on any device."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import LongTensor, Tensor

from ..tokens import NEWLINE, Selection, VisualTokens
from .framing import coords_of, plain_grid
from .segments import segment_mean


class Cells(NamedTuple):
    """A partition of N tokens into K cells, none of them empty."""

    cell: LongTensor  # (N,) the cell each token lies in
    slot: LongTensor  # (K,) the token of each cell nearest to its centre (lower index on a tie)
    weight: Tensor | None  # (N,) float32: 0 for separators that share a cell with patches, else 1; None: ones

    def means(self, values: Tensor) -> Tensor:
        """(S, N, D) -> (S, K, D) mean of each cell, in the dtype of the values; linear in them."""
        return segment_mean(values, self.cell, len(self.slot), self.weight)

    def owner(self) -> LongTensor:
        """(N,) the slot that each token goes into, -1 where it counts for nothing."""
        own = self.slot[self.cell]
        return own if self.weight is None else torch.where(self.weight > 0, own, -1)  # type: ignore[return-value]

    def merged(self, tokens: VisualTokens) -> Selection:
        """Every cell's mean in its slot."""
        images = len(tokens.features)

        def merge(values: Tensor) -> Tensor:
            return self.means(values).index_select(1, self.cell)

        return Selection.of_indices(
            self.slot.expand(images, -1),
            len(self.cell),
            features=merge(tokens.features),
            owner=self.owner().expand(images, -1),
            merge=merge,
        )

    @classmethod
    def of_arrays(cls, cell: np.ndarray, slot: np.ndarray, device: torch.device) -> Cells:
        """From what the host has worked out."""
        return cls(*(torch.from_numpy(a).to(device, non_blocking=True) for a in (cell, slot)), None)  # type: ignore[arg-type]


def _runs(same: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N - 1,) "equal to its successor" -> each token's run, first index of its run and length of its run."""
    one = torch.ones(n, dtype=torch.long, device=same.device)
    run = torch.cat([one[:1] * 0, (~same).long()]).cumsum(0)
    length = torch.zeros_like(one).index_add(0, run, one)
    first = length.cumsum(0) - length
    return run, first[run], length[run]


def _share(total: int, before: Tensor, n: int) -> Tensor:
    """`total` places shared over n tokens in proportion: those due to the first `before` tokens, rounded."""
    return (2 * total * before + n) // (2 * n)


def grid_cells(coords: Tensor, count: int, rows: float | None = None) -> Cells:
    """(N, 4) coordinates -> exactly `count` cells of floor or ceil sizes.

    Each frame of each part is cut into bands of about sqrt(N / count) rows, or of `rows`. Places are shared over the
    bands by cumulative rounding (they sum exactly, and differ from the proportion by less than one), and a band is
    cut, column after column, into as many runs of near-equal size. So cells never cross a frame or a crop unless
    there are fewer cells than frames. A separator belongs to the patch before it. Where bands of h rows by cells of w
    columns divide the grid, this is average pooling.
    """
    n = coords.shape[0]
    index = torch.arange(n, device=coords.device)
    is_patch = coords[:, 2] != NEWLINE
    before = torch.where(is_patch, index, -1).cummax(0).values.clamp_min(0)
    part, t, y, x = coords.index_select(0, before).clamp_min(0).unbind(1)

    frame, _, frame_size = _runs((part[1:] == part[:-1]) & (t[1:] == t[:-1]), n)
    height = torch.zeros_like(index).scatter_reduce(0, frame, y, "amax")[frame] + 1
    band_rows = (n / count) ** 0.5 if rows is None else rows
    bands = torch.minimum((height / band_rows + 0.5).long(), count * frame_size // n).clamp_min(1)
    band = y * bands // height

    key, order = ((frame << 40) | (band << 20) | x).sort(stable=True)
    _, first, size = _runs((key[1:] >> 20) == (key[:-1] >> 20), n)
    low = _share(count, first, n)
    places = _share(count, first + size, n) - low
    sorted_cell = (low + (index - first) * places // size).clamp_max(count - 1)
    cell = torch.zeros_like(index).scatter(0, order, sorted_cell)

    zero = index.new_zeros(count)
    patches = zero.index_add(0, cell, is_patch.long())
    here = patches[cell]
    member = is_patch | (here == 0)
    far = sum(
        (here * v - zero.index_add(0, cell, v * is_patch)[cell]) ** 2 for v in (y, x)
    )  # squared distance to the centre, times the squared number of patches: exact integers
    far = torch.where(member, far, torch.iinfo(torch.long).max)
    nearest = far.argsort(stable=True)
    nearest = nearest[cell[nearest].argsort(stable=True)]
    members = zero.index_add(0, cell, torch.ones_like(index))
    slot = nearest[members.cumsum(0) - members]
    return Cells(cell, slot, member.float())  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def plain_cells(
    grid: tuple[int, int, int], count: int, rows: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`grid_cells` of a whole grid in raster order, on the host: the cell of each token, the slot of each cell."""
    height, n = grid[1], math.prod(grid)
    index = np.arange(n)
    frame, y, x = (v.ravel() for v in np.indices(grid))
    band_rows = (n / count) ** 0.5 if rows is None else rows
    wanted = int(np.float32(height) / np.float32(band_rows) + np.float32(0.5))
    bands = max(1, min(wanted, count * height * grid[2] // n))
    strip = frame * bands + y * bands // height
    order = np.lexsort((x, strip))
    strip = strip[order]
    first, end = np.searchsorted(strip, strip), np.searchsorted(strip, strip, side="right")
    low, high = ((2 * count * edge + n) // (2 * n) for edge in (first, end))
    cell = np.empty(n, dtype=np.int64)
    cell[order] = np.minimum(low + (index - first) * (high - low) // (end - first), count - 1)

    size, far = np.bincount(cell), np.zeros(n, dtype=np.int64)
    for v in (y, x):
        total = np.bincount(cell, weights=v).astype(np.int64)  # exact below 2^53
        far += (size[cell] * v - total[cell]) ** 2
    nearest = np.lexsort((far, cell))
    return cell, nearest[size.cumsum() - size]


def token_cells(tokens: VisualTokens, count: int, rows: float | None = None) -> Cells:
    """`grid_cells` of a group. Where its grid is all there is, its sides decide: made on the host, once a shape."""
    if (grid := plain_grid(tokens)) is None:
        return grid_cells(coords_of(tokens), count, rows)
    return Cells.of_arrays(*plain_cells(grid, count, rows), tokens.features.device)
