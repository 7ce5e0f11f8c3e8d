"""Cutting a clip into the windows in which most tokens stand still, by dynamic programming over frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import BoolTensor, LongTensor, Tensor


class Windows(NamedTuple):
    """The best windows of each clip and what stands still in them."""

    start: LongTensor  # (S, T) first frame of each frame's window
    gain: LongTensor  # (S,) tokens that are copies of one in the first frame of their window
    head: LongTensor  # (S, N) for each still token the one in the first frame of its window, else itself


def still_windows(alike: Tensor, before: Tensor, frame: Tensor, count: int) -> Windows:
    """(S, N) whether a token equals the one before it, (N,) that one, of the frame before, or -1, (N,) frame of T.

    A window [s, e] gains g = |{places alike at every step from s to e}| (e - s), and the windows that tile the clip
    with the largest sum are taken: best[e] = max over s <= e of best[s - 1] + g[s, e]; of equal ones the latest s.
    The gains of all windows that end in e come from one count of how long each place has been still there, so
    memory is O(S T^2 + S N). Only the best sums are found in turns, frame after frame.
    """
    s, n = alike.shape
    line = torch.arange(n, device=alike.device)
    if count == 1:
        zero = torch.zeros(s, 1, dtype=torch.long, device=line.device)
        return Windows(zero, zero[:, 0], line.expand(s, n))  # type: ignore[arg-type]
    link = alike & (before >= 0)
    run = frame - frame[_first(torch.where(link, before, line), count)]  # steps a place has been still
    held = torch.zeros(s, count * count, dtype=torch.long, device=line.device)
    held = held.scatter_add(1, run + frame * count, torch.ones_like(run)).view(s, count, count)
    steps = torch.arange(count, device=line.device)
    gain = held.flip(2).cumsum(2).flip(2) * steps  # (S, e, d): of the window of d steps that ends in e
    start, most = _tiling(gain)
    end = torch.zeros_like(start).scatter_reduce(1, start, steps.expand(s, -1), "amax").gather(1, start)

    # Chains cut where windows begin: a place is still if its chain is as long as the window.
    first, last = start[:, frame], end[:, frame]
    head = _first(torch.where(link & (frame > first), before, line), count)
    length = torch.zeros_like(head).scatter_add(1, head, torch.ones_like(head)).gather(1, head)
    return Windows(start, most, torch.where(length > last - first, head, line))  # type: ignore[arg-type]


def _first(pointer: Tensor, count: int) -> LongTensor:
    """(S, N) one step back, or itself -> (S, N) the first token of each one's chain of at most `count`."""
    for _ in range((count - 2).bit_length()):  # each turn doubles how far back a token sees
        pointer = pointer.gather(1, pointer)
    return pointer  # type: ignore[return-value]


def _tiling(gain: Tensor) -> tuple[LongTensor, LongTensor]:
    """(S, T, T) gains by last frame and steps -> (S, T) first frame of each frame's window, (S,) sum of their gains."""
    s, count, _ = gain.shape
    best = gain.new_zeros(s, count + 1)  # of the first k frames at T - k: the longer a window, the further right
    steps = []
    for e in range(count):
        top, length = (best[:, count - e :] + gain[:, e, : e + 1]).max(1)  # of equal ones the first: the shortest
        best[:, count - e - 1] = top
        steps.append(length)
    begins = torch.arange(count, device=gain.device) - torch.stack(steps, 1)
    now, starts = begins[:, -1], []
    for t in reversed(range(count)):
        now = torch.where(now > t, begins[:, t], now)
        starts.append(now)
    return torch.stack(starts[::-1], 1), best[:, 0]  # type: ignore[return-value]


def is_copy(head: Tensor) -> BoolTensor:
    """(S, N) heads -> (S, N): a still token that is not its window's first."""
    return head != torch.arange(head.shape[1], device=head.device)  # type: ignore[return-value]
