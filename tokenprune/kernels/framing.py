"""The frames of a group as groups of tokens: how many, how large, their means, their tokens side by side."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import BoolTensor, LongTensor, Tensor

from ..tokens import VisualTokens
from .frames import frame_numbers, is_patch
from .segments import segment_mean


class Frames(NamedTuple):
    """T frames of N tokens, none of them empty. A separator lies in the frame of the patch before it."""

    of: LongTensor  # (N,) the frame of each token
    patch: BoolTensor  # (N,) False at separators
    size: LongTensor  # (T,) tokens of each frame
    count: int  # T
    widest: int  # tokens of the largest frame, or a little more
    smallest: int  # tokens of the smallest frame, or a little fewer

    def means(self, values: Tensor) -> Tensor:
        """(S, N, D) -> (S, T, D) mean of each frame's patches, in float32; zero where there is none."""
        return segment_mean(values.float(), self.of, self.count, self.patch)

    def groups(self, like: Tensor) -> LongTensor:
        """(S, N) whatever -> (S, N) the frame of each token."""
        return self.of + torch.zeros_like(like, dtype=torch.long)  # type: ignore[return-value]

    def table(self) -> tuple[LongTensor, LongTensor]:
        """(T, widest) the tokens of each frame in order, -1 behind them; (N,) each token's place in that, flat."""
        order = self.of.argsort(stable=True)
        start = self.size.cumsum(0) - self.size
        frame = self.of[order]
        line = torch.arange(order.shape[0], device=order.device)
        flat = frame * self.widest + line - start[frame]
        table = torch.full((self.count * self.widest,), -1, device=order.device).scatter(0, flat, order)
        return table.view(self.count, -1), torch.zeros_like(order).scatter(0, order, flat)  # type: ignore[return-value]


def coords_of(tokens: VisualTokens) -> Tensor:
    """(N, 4); a single row where nothing is known."""
    if tokens.coords is not None:
        return tokens.coords
    line = torch.arange(tokens.features.shape[1], device=tokens.features.device)
    return torch.stack([line * 0, line * 0, line * 0, line], 1)


def frames_of(tokens: VisualTokens) -> Frames:
    """The frames of a group; a picture, with its crops and separators, is one.

    Their number comes from the grid, so nothing is read back, except of a clip that an earlier stage has cut: there
    frames that lost every token are left out, and the others numbered afresh.
    """
    coords, n = coords_of(tokens), tokens.features.shape[1]
    frame: Tensor = frame_numbers(coords)
    if tokens.grid is None and tokens.kind == "video":
        size = frame.bincount()
        count, widest, smallest = len(size), int(size.max()), int(size.min())
    else:
        count, h, w = tokens.grid or (1, 1, n)
        frame = frame if count > 1 else frame * 0
        widest, smallest = n - (count - 1) * h * w, h * w
        size = torch.zeros(count, dtype=torch.long, device=frame.device)
        size = size.index_add(0, frame, torch.ones_like(frame))
    return Frames(frame, is_patch(coords), size, count, widest, smallest)  # type: ignore[arg-type]
