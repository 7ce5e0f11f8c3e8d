"""Farthest-first choice within a frame, against a memory of what earlier frames have given.

A token's nearness is its largest cosine with anything kept; the next token taken is the one of least nearness. The
order is nested: the first k of any longer run are the k that a run of k takes.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import LongTensor, Tensor

from .clusters import rows
from .similarity import BLOCK_BYTES
from .switch import with_triton

EMPTY, LAST, TAKEN = -4.0, 1e6, 1e12
"""Nearness with nothing kept yet; of a token to take after all others; of one that is taken."""
SAME = 4e-6
"""Cosines this near to one are one: copies of a token tie, whatever the rounding of a product."""
NEVER = -(2**40)


def snap(cosines: Tensor) -> Tensor:
    """In place."""
    return cosines.masked_fill_(cosines > 1 - SAME, 1.0)


class Memory:
    """Unit vectors kept from each image's frames, each stamped with its frame. Grows to what a window holds.

    window: frames that count, None for all. cut: mean residual of a frame above which an image forgets all before.
    """

    def __init__(
        self, like: Tensor, window: int | None = None, cut: float | None = None, size: int = 0
    ) -> None:
        """`like` (S, ..., D); `size`: rows to start with."""
        s, d = like.shape[0], like.shape[-1]
        self.window, self.cut = window, cut
        self.rows = torch.zeros(s, size, d, device=like.device)
        self.stamp = torch.full((s, size), NEVER, device=like.device)
        self.since = torch.zeros(s, 1, dtype=torch.long, device=like.device)
        self.first = self.used = 0  # the rows that may count
        self.starts: deque[tuple[int, int]] = deque()  # (frame, its first row), appended ones only

    def recall(self, x: Tensor, frame: int | Tensor, fresh: Tensor | None = None) -> Tensor:
        """(S, N, D) unit tokens of a frame, its number or (S, 1) numbers -> (S, N) nearness to what is remembered.

        `fresh` (S, 1): whether this image meets the frame for the first time, as only then a cut is looked for.
        """
        s, n, _ = x.shape
        if self.used == self.first:
            return torch.full((s, n), EMPTY, device=x.device)
        kept, stamp = self.rows[:, self.first : self.used], self.stamp[:, self.first : self.used]
        oldest = self.since if self.window is None else self.since.clamp_min(frame - self.window)
        hidden = torch.where(stamp < oldest, 2 * EMPTY, 0.0).unsqueeze(1)
        step = max(1, BLOCK_BYTES // (4 * s * kept.shape[1]))
        blocks = [
            torch.bmm(x[:, i : i + step], kept.transpose(1, 2)).add_(hidden).amax(2)
            for i in range(0, n, step)
        ]
        near = snap(torch.cat(blocks, 1))
        if self.cut is None:
            return near.clamp_min_(EMPTY)
        cut = (1 - near).mean(1, keepdim=True) > self.cut
        cut = cut if fresh is None else cut & fresh
        self.since = torch.where(cut, frame, self.since)
        return near.clamp_min_(EMPTY).masked_fill_(cut, EMPTY)

    def append(self, vectors: Tensor, frame: int, valid: Tensor | None = None) -> None:
        """Remember (S, c, D) of `frame`, of which (S, c) `valid` count; rows outside the window make place."""
        c = vectors.shape[1]
        while self.window is not None and self.starts and self.starts[0][0] <= frame - self.window:
            self.starts.popleft()
            self.first = self.starts[0][1] if self.starts else self.used
        if self.used + c > self.rows.shape[1]:
            self._move(c)
        self.starts.append((frame, self.used))
        here = slice(self.used, self.used + c)
        self.rows[:, here] = vectors
        self.stamp[:, here] = frame if valid is None else torch.where(valid, frame, NEVER)
        self.used += c

    def _move(self, more: int) -> None:
        """Live rows to the front, of larger buffers where they would soon be full again."""
        live, size = self.used - self.first, self.rows.shape[1]
        for name in ("rows", "stamp"):
            old = getattr(self, name)
            new = (
                old
                if live + more <= size // 2
                else old.new_zeros(old.shape[0], 2 * (live + more), *old.shape[2:])
            )
            new[:, :live] = old[:, self.first : self.used].clone()
            setattr(self, name, new)
        self.starts = deque((frame, start - self.first) for frame, start in self.starts)
        self.first, self.used = 0, live

    def put(self, place: Tensor, vectors: Tensor, stamp: Tensor) -> None:
        """Remember (S, c, D) in rows (S, c) of a ring of the size it began with, stamped (S, c)."""
        self.rows.scatter_(1, place.unsqueeze(2).expand_as(vectors), vectors)
        self.stamp.scatter_(1, place, stamp)
        self.used = min(self.rows.shape[1], self.used + place.shape[1])


class Picker:
    """Farthest-first order of one frame's tokens, from a nearness on."""

    def __init__(
        self,
        x: Tensor,
        near: Tensor,
        weight: Tensor | None = None,
        steps: int | None = None,
        may_start: bool = True,
    ) -> None:
        """(S, N, D) unit rows, (S, N) nearness (taken over), (S, N) weights > 0 of the residual, number of picks.

        Where nothing is kept yet the first pick is the token most like the frame's mean; `may_start` false says that
        there is something, so that the mean need not be made.
        """
        s, n, _ = x.shape
        self.x, self.near, self.weight, self.gram = x, near, weight, None
        if 4 * s * n * n <= BLOCK_BYTES and (steps is None or 16 * steps >= n):
            gram = snap(torch.bmm(x, x.transpose(1, 2)))
            gram.diagonal(0, 1, 2).fill_(TAKEN)
            self.gram = gram.view(s * n, n)
            self.base = torch.arange(0, s * n, n, device=x.device).unsqueeze(1)
        self.key: Tensor | None = None
        if not may_start:
            return
        ordinary = near < LAST / 2
        centre = torch.bmm(ordinary.float().unsqueeze(1), x)  # (S, 1, D)
        typical = torch.where(ordinary, -torch.bmm(x, centre.transpose(1, 2)).squeeze(2), near)
        nothing = near.amin(1, keepdim=True) < EMPTY / 2
        self.key = torch.where(nothing, typical, self._key())

    def _key(self) -> Tensor:
        return self.near if self.weight is None else (self.near - 1) * self.weight

    def gap(self) -> Tensor:
        """(S, 1) largest residual of what is left."""
        return 1 - self.near.amin(1, keepdim=True)

    def next(self) -> LongTensor:
        """(S, 1) the token taken."""
        key, self.key = self._key() if self.key is None else self.key, None
        pick = key.argmin(1, keepdim=True)
        if self.gram is not None:
            row = self.gram.index_select(0, (pick + self.base).view(-1))
        else:
            row = torch.bmm(self.x, rows(self.x, pick).transpose(1, 2)).squeeze(2)
            row = snap(row).scatter_(1, pick, TAKEN)
        torch.maximum(self.near, row, out=self.near)
        return pick  # type: ignore[return-value]

    def take(self, count: int) -> LongTensor:
        """(S, count) in the order of choice."""
        return take(self.near, self, count)  # type: ignore[return-value]


@with_triton("farthest")
def take(near: Tensor, picker: Picker, count: int) -> Tensor:
    """(S, count) the next tokens of `picker`, whose nearness (S, N) changes in place."""
    return torch.cat([picker.next() for _ in range(count)], 1)
