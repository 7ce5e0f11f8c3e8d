"""The frames of a group as groups of tokens: how many, how large, and their tokens side by side."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import BoolTensor, LongTensor, Tensor

from ..tokens import NEWLINE, VisualTokens
from .frames import frame_numbers, is_patch, latest_at


class Sheet(NamedTuple):
    """Groups of tokens side by side, W places for each of T groups; filler behind those that have fewer."""

    count: int  # T
    width: int  # W
    token: LongTensor | None = None  # (T W,) token at each place, filler repeats one; None: they stand so
    place: LongTensor | None = None  # (N,) place of each token
    real: BoolTensor | None = None  # (T, W) False at filler; None: there is none
    patch: BoolTensor | None = None  # (T, W) False at filler and separators; None: there are none

    def lay(self, values: Tensor) -> Tensor:
        """(S, N, ...) -> (S, T, W, ...)."""
        if self.token is not None:
            values = values.index_select(1, self.token)
        return values.unflatten(1, (self.count, self.width))

    def lay_mask(self, member: Tensor) -> Tensor:
        """(S, N) bool -> (S, T, W), False at filler."""
        laid = self.lay(member)
        return laid if self.real is None else laid & self.real

    def take_up(self, laid: Tensor) -> Tensor:
        """(S, T, W) -> (S, N)."""
        flat = laid.flatten(1)
        return flat if self.place is None else flat.index_select(1, self.place)

    def means(self, laid: Tensor) -> Tensor:
        """(S, T, W, D) -> (S, T, D) mean of each group's patches; zero where there is none."""
        if self.patch is None:
            return laid.mean(2)
        share = self.patch / self.patch.sum(1, keepdim=True).clamp_min(1)
        return (laid * share.unsqueeze(2)).sum(2)

    def ranks(self, laid: Tensor, last: Tensor | None = None) -> LongTensor:
        """(S, T, W) scores -> (S, T, W) how many of its group come before each, by falling score; filler last.

        `last` (S, T, W) bool: those that come after all others of their group, among themselves by score.
        """
        if self.real is not None:
            laid = laid.float().masked_fill(~self.real, -float("inf"))
        place = laid.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
        if last is not None:
            last = last if self.real is None else last | ~self.real
            place = torch.add(place, last, alpha=self.width).argsort(dim=2).argsort(dim=2)
        return place  # type: ignore[return-value]

    def best(self, laid: Tensor, quota: Tensor) -> BoolTensor:
        """(S, T, W) scores, (S, T) counts -> (S, N): so many largest of each group, ties to the lower index."""
        return self.take_up(self.ranks(laid) < quota.unsqueeze(2))  # type: ignore[return-value]

    def least(self, laid: Tensor, count: int) -> BoolTensor:
        """(S, T, W) keys -> (S, N): the `count` least of all groups together, ties to the lower index; no filler."""
        if self.real is not None:
            laid = laid.float().masked_fill(~self.real, float("inf"))
        flat = laid.flatten(1)
        chosen = torch.zeros_like(flat, dtype=torch.bool)
        return self.take_up(chosen.scatter_(1, flat.argsort(dim=1, stable=True)[:, :count], True))  # type: ignore[return-value]

    def shared(self, rank: Tensor, weight: Tensor, total: int, out: Tensor | None = None) -> BoolTensor:
        """(S, T, W) ranks, (T,) or (S, T) weights > 0 -> (S, N): `total` tokens, the first of every group.

        One after the other goes to the group of the least (r + 1/2) / weight, r those that it has got, ties to the
        lower group. So parts are in proportion to the weights (Webster's rounding), exact, capped by what a group
        has, and nested in the total. `out` (S, T, W) bool are left out; they have to rank behind the others.
        """
        turn = (rank + 0.5) / weight.unsqueeze(-1)
        return self.least(turn if out is None else turn.masked_fill_(out, float("inf")), total)


class Frames(NamedTuple):
    """T frames of N tokens, none of them empty. A separator lies in the frame of the patch before it."""

    of: LongTensor  # (N,) the frame of each token
    patch: BoolTensor | None  # (N,) False at separators; None: there are none
    size: LongTensor  # (T,) tokens of each frame
    count: int  # T
    widest: int  # tokens of the largest frame, or a little more
    smallest: int  # tokens of the smallest frame, or a little fewer

    def groups(self, like: Tensor) -> LongTensor:
        """(S, N) whatever -> (S, N) the frame of each token."""
        return self.of + torch.zeros_like(like, dtype=torch.long)  # type: ignore[return-value]

    def table(self) -> tuple[LongTensor, LongTensor]:
        """(T, widest) the tokens of each frame in order, -1 behind them; (N,) each token's place in that, flat."""
        line = torch.arange(self.of.shape[0], device=self.of.device)
        flat = self.of * self.widest + line - (self.size.cumsum(0) - self.size)[self.of]
        return _table(flat, self.count, self.widest), flat  # type: ignore[return-value]

    def sheet(self) -> Sheet:
        """The frames side by side; nothing moves where shapes tell that all have the same size."""
        if self.count * self.widest == self.of.shape[0]:
            patch = None if self.patch is None else self.patch.view(self.count, -1)
            return Sheet(self.count, self.widest, patch=patch)  # type: ignore[arg-type]
        table, place = self.table()
        token, real = table.flatten().clamp_min(0), table >= 0
        patch = real if self.patch is None else real & self.patch[token].view_as(real)
        return Sheet(self.count, self.widest, token, place, real, patch)  # type: ignore[arg-type]


def frame_before(tokens: VisualTokens, frames: Frames) -> LongTensor:
    """(N,) each token's place in the very frame before its own, -1 where there is none."""
    if (grid := plain_grid(tokens)) is not None:
        line = torch.arange(tokens.features.shape[1], device=frames.of.device)
        return (line - grid[1] * grid[2]).clamp_min(-1)  # type: ignore[return-value]
    coords = coords_of(tokens)
    before = latest_at(coords, coords[:, 1] - 1)
    return torch.where(frames.of - frames.of[before.clamp_min(0)] == 1, before, -1)  # type: ignore[return-value]


def places_of(tokens: VisualTokens, frames: Frames) -> Sheet:
    """The tokens of every frame at their places in it, filler where one is missing, separators in a last column.

    Of a clip that an earlier stage has cut the largest coordinates are read back.
    """
    if plain_grid(tokens) is not None:
        return Sheet(frames.count, frames.widest)
    coords = coords_of(tokens)
    h, w = tokens.grid[1:] if tokens.grid is not None else (coords[:, 2:].amax(0) + 1).tolist()
    width = h * w + (frames.patch is not None)
    column = torch.where(coords[:, 2] == NEWLINE, h * w, coords[:, 2] * w + coords[:, 3])
    place = torch.add(column, frames.of, alpha=width)
    table = _table(place, frames.count, width)
    return Sheet(frames.count, width, table.flatten().clamp_min(0), place, table >= 0)  # type: ignore[arg-type]


def _table(place: Tensor, count: int, width: int) -> Tensor:
    """(N,) places in a table, flat -> (T, W) the token at each, -1 at filler."""
    line = torch.arange(place.shape[0], device=place.device)
    return torch.full((count * width,), -1, device=line.device).scatter(0, place, line).view(count, width)


def coords_of(tokens: VisualTokens) -> Tensor:
    """(N, 4); a single row where nothing is known."""
    if tokens.coords is not None:
        return tokens.coords
    line = torch.arange(tokens.features.shape[1], device=tokens.features.device)
    return torch.stack([line * 0, line * 0, line * 0, line], 1)


def plain_grid(tokens: VisualTokens) -> tuple[int, int, int] | None:
    """The grid (t, h, w) of tokens that are all of it, in raster order, and nothing else: it tells where each lies."""
    grid = tokens.grid
    return grid if grid is not None and grid[0] * grid[1] * grid[2] == tokens.features.shape[1] else None


def frame_of(tokens: VisualTokens) -> LongTensor:
    """(N,) the frame of each token, from 0; crops count as frames."""
    if (grid := plain_grid(tokens)) is None:
        return frame_numbers(coords_of(tokens))
    line = torch.arange(tokens.features.shape[1], device=tokens.features.device)
    return line // (grid[1] * grid[2])  # type: ignore[return-value]


def frames_of(tokens: VisualTokens) -> Frames:
    """The frames of a group; a picture, with its crops and separators, is one.

    Their number comes from the grid, so nothing is read back, except of a clip that an earlier stage has cut: there
    frames that lost every token are left out, and the others numbered afresh.
    """
    n, device = tokens.features.shape[1], tokens.features.device
    if (grid := plain_grid(tokens)) is not None:
        count, each = grid[0], grid[1] * grid[2]
        return Frames(frame_of(tokens), None, torch.full((count,), each, device=device), count, each, each)  # type: ignore[arg-type]
    coords = coords_of(tokens)
    patch = is_patch(coords)
    if (tokens.kind != "video") if tokens.grid is None else tokens.grid[0] == 1:
        of, size = torch.zeros(n, dtype=torch.long, device=device), torch.full((1,), n, device=device)
        return Frames(of, patch, size, 1, n, n)  # type: ignore[arg-type]
    of: Tensor = frame_numbers(coords)
    if tokens.grid is None:
        size = of.bincount()
        return Frames(of, patch, size, len(size), int(size.max()), int(size.min()))  # type: ignore[arg-type]
    count, each = tokens.grid[0], tokens.grid[1] * tokens.grid[2]
    size = torch.zeros(count, dtype=torch.long, device=device).index_add(0, of, torch.ones_like(of))
    return Frames(of, patch, size, count, n - (count - 1) * each, each)  # type: ignore[arg-type]
