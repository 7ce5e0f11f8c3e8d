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
    """(S, N) whether a token equals the one before it, (N,) that one or -1, (N,) frame of T -> windows.

    A window [s, e] gains g = |{places alike at every step from s to e}| (e - s), and the windows that tile the clip
    with the largest sum are taken: best[e] = max over s <= e of best[s - 1] + g[s, e]; of equal ones the latest s.
    The gains of all windows that end in e come from one count of how long each place has been still there, so
    memory is O(S T^2 + S N) and the loops are over frames.
    """
    s, n = alike.shape
    device, line = alike.device, torch.arange(n, device=alike.device)
    alike = alike & (before >= 0)
    back = before.clamp_min(0)
    run = torch.zeros(s, n, dtype=torch.long, device=device)  # steps a place has been still, up to its frame
    for t in range(1, count):
        run = torch.where((frame == t) & alike, run[:, back] + 1, run)
    place = (frame * count).unsqueeze(0) + run
    held = torch.zeros(s, count * count, dtype=torch.long, device=device)
    held = held.scatter_add(1, place, torch.ones_like(place)).view(s, count, count)
    held = held.flip(2).cumsum(2).flip(2)  # (S, e, d): places still for at least d steps at e

    best = torch.zeros(s, count + 1, dtype=torch.long, device=device)  # best[:, e]: of the frames before e
    steps, choice = torch.arange(count, device=device), []
    for e in range(count):
        value = best[:, : e + 1].flip(1) + held[:, e, : e + 1] * steps[: e + 1]  # by length of the window
        top, length = value.max(1)
        length = (value == top.unsqueeze(1)).to(torch.uint8).argmax(1)  # the shortest of equal ones
        best[:, e + 1] = top
        choice.append(e - length)
    starts, now = [], torch.full((s,), count, device=device)
    for t in reversed(range(count)):
        now = torch.where(t < now, choice[t], now)
        starts.append(now)
    start = torch.stack(starts[::-1], 1)  # (S, T)
    end = torch.zeros_like(start).scatter_reduce(1, start, steps + torch.zeros_like(start), "amax")
    end = end.gather(1, start)

    # Still in its window: so long a run at the window's end. Carried from there back to the first frame.
    first, last = start[:, frame], end[:, frame]
    after = torch.full((n + 1,), -1, device=device).scatter(0, torch.where(before >= 0, before, n), line)[:n]
    still = (run >= last - first) & (last == frame) & (last > first)
    for t in reversed(range(count - 1)):
        follows = (frame == t) & (last > t) & (after >= 0)
        still = torch.where(follows, still[:, after.clamp_min(0)], still)
    head = line + torch.zeros_like(run)
    for t in range(1, count):
        head = torch.where((frame == t) & still & (first < t), head[:, back], head)
    return Windows(start, best[:, count], head)  # type: ignore[arg-type]


def is_copy(head: Tensor) -> BoolTensor:
    """(S, N) heads -> (S, N): a still token that is not its window's first."""
    return head != torch.arange(head.shape[1], device=head.device)  # type: ignore[return-value]
