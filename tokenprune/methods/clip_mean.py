"""Frames averaged over windows of time: many frames in, one grid per window out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import budget as _budget
from ..errors import BudgetError
from ..kernels import Cells, grid_cells, token_cells
from ..kernels.cells import plain_cells
from ..kernels.frames import is_patch
from ..kernels.framing import coords_of, plain_grid
from ..tokens import Selection, VisualTokens
from .base import Reducer, register


@register("clip_mean", aliases=("f16",))
@dataclass(frozen=True)
class ClipMean(Reducer):
    """Frames averaged over windows of time, place by place; the grids that are left are pooled to `keep`.

    F-16, 2025, arXiv:2503.13956, as far as it goes without training: its aligner starts as the mean over the 16
    frames of one second of each place's projected token, and its grids are pooled 2 x 2 afterwards. Here:

        W = min(T, max(ceil(T / window), ceil(keep / h w)))   windows of floor or ceil(T / W) frames
        g_wi = mean of x_ti over t in window w;   the W h w tokens g are pooled to `keep` cells as `pool` does

    so a budget too large for one grid per window gets shorter windows, and one too small coarser grids (keep =
    W h w / 4 is the 2 x 2 pooling). A kept token lives in the middle frame of its window. `merge` is this linear map.

    `window` in frames (values of t: pairs of frames on Qwen); None: one second of `fps` frames, or 4 without `fps`.
    A budget in tokens per second replaces `keep`: tokens_per_second n / (fps tokens_per_frame), rounded, with
    `fps` and `tokens_per_frame` (h w of one t) given, as neither is known from the n of a clip; then a longer clip
    gets more tokens.

    Deviations. Windows differ by at most one frame (F-16 fills the last one up with zeros, a whole one where T
    divides). On an image, and after an earlier cut has broken the grid, there are no windows: this is `pool`.
    Traps. What moves is blurred. Separators as in `pool`: dropped where they share a cell with patches.
    """

    window: int | None = None
    fps: float | None = None
    tokens_per_second: float | None = None
    tokens_per_frame: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window", "fps", "tokens_per_second", "tokens_per_frame"):
            value, whole = getattr(self, name), name in ("window", "tokens_per_frame")
            if value is not None:
                _budget.check_number(name, value, 1 if whole else 1e-6, 2**30, whole)
        if self.tokens_per_second is not None and None in (self.fps, self.tokens_per_frame):
            raise BudgetError(
                "tokens_per_second needs fps and tokens_per_frame: the length of a clip is n / both"
            )

    def schedule(self, n: int, num_layers: int) -> dict[int, int] | None:
        if self.tokens_per_second is None:
            return super().schedule(n, num_layers)
        assert self.fps is not None and self.tokens_per_frame is not None
        seconds = n / self.tokens_per_frame / self.fps
        return {0: _budget.count(max(1, math.floor(self.tokens_per_second * seconds + 0.5)), n)}

    def windows(self, frames: int, patches: int, wanted: int) -> int:
        """W for T frames of h w `patches` that have to hold `wanted` cells."""
        length = self.window or max(1, math.floor((self.fps or 4) + 0.5))
        return min(frames, max(-(-frames // length), -(-wanted // patches)))

    def plain(self, grid: tuple[int, int, int], keep: int) -> tuple[np.ndarray, np.ndarray]:
        """`plain_cells` of the windows of a whole grid, with every token in its window's cell: made on the host."""
        frames, h, w = grid
        count, places = self.windows(frames, h * w, keep), np.arange(h * w)
        cell, slot = plain_cells((count, h, w), keep)
        edge = -(-np.arange(count + 1) * frames // count)
        middle = (edge[:-1] + edge[1:] - 1) // 2
        own = np.arange(frames) * count // frames
        home, stand = (of[:, None] * h * w + places for of in (own, middle))
        return cell[home.ravel()], stand.ravel()[slot]

    def homes(self, tokens: VisualTokens, coords: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """(M,) tokens that stand for a window's places (its middle frame, and separators), (N,) which one is each's."""
        n = tokens.shape[1]
        index = torch.arange(n, device=coords.device)
        frames, h, w = tokens.grid or (1, 1, n)
        rest = n - frames * h * w
        count = self.windows(frames, h * w, keep - rest)
        _, t, y, x = coords.clamp_min(0).unbind(1)
        own = t * count // frames
        low, high = -(-own * frames // count), -(-(own + 1) * frames // count) - 1
        middle, patch = (low + high) // 2, is_patch(coords)
        stands = ~patch | (t == middle)
        order = (~stands).to(torch.uint8).argsort(stable=True)[: count * h * w + rest]
        place = stands.long().cumsum(0) - 1
        at = torch.where(patch, (t * h + y) * w + x, frames * h * w)
        lookup = index.new_zeros(frames * h * w + 1).scatter(0, at, place)
        return order, torch.where(patch, lookup[(middle * h + y) * w + x], place)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        if tokens.kind != "video" or tokens.grid is None:
            return token_cells(tokens, keep).merged(tokens)
        if (grid := plain_grid(tokens)) is not None:
            return Cells.of_arrays(*self.plain(grid, keep), tokens.features.device).merged(tokens)
        coords = coords_of(tokens)
        stand, home = self.homes(tokens, coords, keep)
        cell, slot, weight = grid_cells(coords[stand], keep)
        assert weight is not None
        return Cells(cell[home], stand[slot], weight[home]).merged(tokens)  # type: ignore[arg-type]
