"""Shapes of an image's tokens: its grid and the coordinates of each token. Cached, so equal shapes are one object."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import LongTensor

from ..tokens import NEWLINE


@dataclass(frozen=True, eq=False)
class Shape:
    """Where the tokens of one image or video lie. Images with the same `Shape` object are scored in one batch."""

    n: int
    grid: tuple[int, int, int] | None  # (t, h, w) of the tokens that are not newlines
    coords: LongTensor  # (n, 4): part, t, y, x; NEWLINE in y and x at separators


def _part(part: int, t: int, h: int, w: int) -> torch.Tensor:
    frames, rows, columns = torch.meshgrid(torch.arange(t), torch.arange(h), torch.arange(w), indexing="ij")
    flat = [torch.full_like(frames, part), frames, rows, columns]
    return torch.stack([f.reshape(-1) for f in flat], dim=1)


@lru_cache(maxsize=1024)
def grid_shape(t: int, h: int, w: int, newlines: int = 0, heads: int = 0) -> Shape:
    """A regular (t, h, w) grid in raster order, `newlines` separators at its end, `heads` before each frame."""
    coords = _part(0, t, h, w)
    if heads:
        lead = coords.new_full((t, heads, 4), NEWLINE)
        lead[..., 0], lead[..., 1] = 0, torch.arange(t)[:, None]
        coords = torch.cat([lead, coords.view(t, h * w, 4)], 1).flatten(0, 1)
    tail = torch.full((newlines, 4), NEWLINE)
    tail[:, :2] = torch.tensor([0, t - 1])
    return Shape(len(coords) + newlines, (t, h, w), torch.cat([coords, tail]))  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def tiled_shape(base_h: int, base_w: int, h: int, w: int) -> Shape:
    """A thumbnail (part 0) followed by one stitched picture of (h, w) tokens (part 1) whose rows end in newlines."""
    stitched = torch.cat(
        [_part(1, 1, h, w).view(h, w, 4), torch.tensor([1, 0, 0, NEWLINE]).expand(h, 1, 4)], dim=1
    )
    stitched[:, -1, 2] = NEWLINE
    coords = torch.cat([_part(0, 1, base_h, base_w), stitched.reshape(-1, 4)])
    return Shape(coords.shape[0], None, coords)  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def flat_shape(n: int) -> Shape:
    """Tokens whose layout is not known: a square when n is one, else a single row without a grid."""
    side = int(n**0.5)
    if side * side == n:
        return grid_shape(1, side, side)
    return row_shape(n)


@lru_cache(maxsize=1024)
def row_shape(n: int) -> Shape:
    """Tokens without places: one after the other, no grid."""
    return Shape(n, None, _part(0, 1, 1, n))  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def two_grids(base_h: int, base_w: int, h: int, w: int) -> Shape:
    """The whole picture (part 0), then the same of (h, w) tokens (part 1); only the first where that has none."""
    if h * w == 0:
        return grid_shape(1, base_h, base_w)
    coords = torch.cat([_part(0, 1, base_h, base_w), _part(1, 1, h, w)])
    return Shape(len(coords), None, coords)  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def joined_shape(tiles: tuple[Shape, ...], thumbnail: int = -1) -> Shape:
    """One image from tiles, last or first of them its thumbnail, which becomes part 0; the others follow from 1 on."""
    coords = [t.coords.clone() for t in tiles]
    for part, tile in enumerate(coords):
        tile[:, 0] = (part - thumbnail) % len(tiles)
    return Shape(sum(t.n for t in tiles), None, torch.cat(coords))  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def clip_shape(frame: Shape, t: int) -> Shape:
    """One video from `t` frames that came as images, each with a grid."""
    coords = frame.coords.repeat(t, 1)
    coords[:, 1] = torch.arange(t).repeat_interleave(frame.n)
    return Shape(t * frame.n, (t, *frame.grid[1:]), coords)  # type: ignore[index, arg-type]


@lru_cache(maxsize=64)  # its keys are long
def thinned_shape(shape: Shape, keep: tuple[bool, ...]) -> Shape:
    """What is left of an image whose model leaves out some of its tokens."""
    if all(keep):
        return shape
    coords = shape.coords[torch.tensor(keep)]
    return Shape(len(coords), None, coords)  # type: ignore[arg-type]
