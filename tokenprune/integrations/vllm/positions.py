"""M-RoPE positions of a prompt from which visual tokens are missing: those that were left keep their own.

Where text stands depends on the grids only, never on which tokens survived. So text positions are right at once, and
only the slots of visual tokens wait for their features, which carry where they came from in columns of their own.
That is what makes prefix caching and chunks right: nothing behind a picture has to be moved later, and filling the
same slots twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DIGITS = 2
BASE = 128
"""Positions travel as two digits below 128: numbers up to 128 are exact in bfloat16, 5000 is not."""
AXES = 4
COLUMNS = AXES * DIGITS
"""Columns behind the features of each row: t, h, w inside its own picture, and the picture's last position."""


@dataclass(frozen=True)
class Run:
    """The slots of one image, one video, or one frame of a video whose frames stand apart."""

    offset: int  # of the first slot in the prompt
    length: int  # slots, as many as tokens were kept; may be none
    grid: tuple[int, int, int]  # (t, h, w) of all its tokens
    factor: float = 1.0  # positions between two values of t


def local(grid: tuple[int, int, int], factor: float = 1.0) -> Tensor:
    """(N, 4) long: positions t, h, w inside the picture, and the largest of them all, the same in each row."""
    t, h, w = (torch.arange(size) for size in grid)
    times = t if factor == 1.0 else (t.double() * factor).long()
    axes = torch.stack(torch.meshgrid(times, h, w, indexing="ij"), -1).view(-1, 3)
    return torch.cat([axes, axes.max().expand(len(axes), 1)], 1)


def pack(positions: Tensor, dtype: torch.dtype) -> Tensor:
    """(K, 4) positions below 16384 -> (K, 8) digits, exact in any floating type of 8 bits of mantissa."""
    return torch.cat([positions // BASE, positions % BASE], 1).to(dtype)


def unpack(columns: Tensor) -> Tensor:
    """(K, 8) digits -> (K, 4) positions."""
    high, low = columns.long().split(AXES, 1)
    return high * BASE + low


def lay_out(total: int, runs: Sequence[Run]) -> tuple[Tensor, int]:
    """(3, total) positions of a prompt of so many tokens, and what a generated token's position is ahead of its place.

    Text after a picture starts behind the largest position of its whole grid, as if nothing had been cut. Slots hold
    that largest position until `fill` comes.
    """
    out = torch.empty(total, dtype=torch.long)
    place = after = 0
    for run in sorted(runs, key=lambda run: run.offset):
        out[place : run.offset] = torch.arange(run.offset - place) + after
        start = after + run.offset - place
        after = start + int(local(run.grid, run.factor)[0, 3]) + 1
        place = run.offset + run.length
        out[run.offset : place] = after - 1
    out[place:] = torch.arange(total - place) + after
    return out.expand(3, -1).clone(), after + (total - place) - total


def fill(positions: Tensor, visual: Tensor, columns: Sequence[Tensor], computed: int) -> tuple[Tensor, int]:
    """Write the slots of one chunk: (3, L) positions, (L,) which tokens are visual, the (K, 8) columns of its features.

    The chunk's features belong to the first visual tokens from place `computed` on. A run starts one behind the text
    before it. Returns new positions and what a generated token's position is ahead of its place.
    """
    positions, length = positions.clone(), positions.shape[1]
    places = torch.arange(length, device=positions.device)
    rows = torch.cat([unpack(c.to(positions.device)) for c in columns]) if columns else None
    if rows is not None and len(rows):
        slots = (visual & (places >= computed)).nonzero()[: len(rows), 0]
        text = torch.where(visual, -1, places).cummax(0).values[slots]
        start = torch.where(text < 0, 0, positions[0, text.clamp_min(0)] + 1)
        positions[:, slots] = (start[:, None] + rows[: len(slots), :3]).T
        if (
            len(slots) and int(slots[-1]) == length - 1
        ):  # the prompt ends in a picture, perhaps without its corner
            return positions, int(start[-1] + rows[len(slots) - 1, 3]) + 1 - length
    return positions, (int(positions.max()) + 1 - length if length else 0)
