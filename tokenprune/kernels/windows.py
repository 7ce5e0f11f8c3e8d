"""Cutting a clip into the windows in which most tokens stand still, by dynamic programming over frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import BoolTensor, LongTensor, Tensor

from .framing import Sheet


class Windows(NamedTuple):
    """The best windows of each clip and what stands still in them."""

    start: LongTensor  # (S, T) first frame of each frame's window
    gain: LongTensor  # (S,) tokens that are copies of one in the first frame of their window
    still: BoolTensor  # (S, T, P) whether a place stands still from the first frame of its window to the last


def still_windows(alike: Tensor) -> Windows:
    """(S, T, P) whether the token at a place equals that of the frame before, False in the first -> the windows.

    A window [s, e] gains g = |{places alike at every step from s to e}| (e - s), and the windows that tile the clip
    with the largest sum are taken: best[e] = max over s <= e of best[s - 1] + g[s, e]; of equal ones the latest s.
    The gains of all windows that end in e come from how long each place has been still there, so memory is
    S T^2 P bytes. Only the best sums are found in turns, frame after frame.
    """
    s, count, places = alike.shape
    steps = torch.arange(count, device=alike.device)
    frame = steps.unsqueeze(1)
    run = frame - torch.where(alike, 0, frame).cummax(1).values  # steps a place has been still
    gain = (run.unsqueeze(3) >= steps).sum(2) * steps  # (S, e, d): of the window of d steps that ends in e
    start, most = _tiling(gain)
    end = torch.searchsorted(start, start, right=True) - 1
    at_end = run.gather(1, end.unsqueeze(2).expand(s, count, places))
    return Windows(start, most, at_end >= (end - start).unsqueeze(2))  # type: ignore[arg-type]


def still_heads(alike: Tensor, places: Sheet, frame: Tensor, line: Tensor) -> LongTensor:
    """(S, N) whether a token equals that of its place in the frame before, (N,) frames, (N,) 0 .. N - 1 -> (S, N)
    the first token of its window at its place.

    Itself for a token that does not stand still all through its window.
    """
    found = still_windows(places.lay_mask(alike))
    still = places.take_up(found.still)
    back = found.start[:, frame] - frame
    if places.token is None or places.place is None:
        return torch.where(still, torch.add(line, back, alpha=places.width), line)  # type: ignore[return-value]
    first = places.token[torch.add(places.place, back, alpha=places.width)]
    return torch.where(still & (back < 0), first, line)  # type: ignore[return-value]


def _tiling(gain: Tensor) -> tuple[LongTensor, LongTensor]:
    """(S, T, T) gains by last frame and steps -> (S, T) first frame of each frame's window, (S,) sum of their gains."""
    s, count, _ = gain.shape
    best = gain.new_zeros(s, count + 1)  # of the first k frames at T - k: the longer a window, the further right
    steps = [best[:, count]]  # none to the first frame
    for e in range(1, count):
        top, length = (best[:, count - e :] + gain[:, e, : e + 1]).max(1)  # of equal ones the first: the shortest
        best[:, count - e - 1] = top
        steps.append(length)
    begins = torch.arange(count, device=gain.device) - torch.stack(steps, 1)
    starts = [begins[:, -1]]
    for t in reversed(range(count - 1)):
        starts.append(torch.where(starts[-1] > t, begins[:, t], starts[-1]))
    return torch.stack(starts[::-1], 1), best[:, 0]  # type: ignore[return-value]
