"""A clip thinned frame by frame: what each frame adds to the memory of what was kept before it."""

from __future__ import annotations

import torch
from torch import BoolTensor, Tensor

from .clusters import rows
from .farthest import LAST, TAKEN, Memory, Picker, snap
from .precision import ranking
from .similarity import TINY, max_similarity, unit
from .switch import with_triton

CHUNK = 16
"""Picks between two looks at whether a frame has nothing new left."""


def even_counts(total: int, frames: int) -> list[int]:
    """`total` spread over the frames: floor or ceil of the mean, the larger ones evenly in between."""
    return [
        (2 * total * (t + 1) + frames) // (2 * frames) - (2 * total * t + frames) // (2 * frames)
        for t in range(frames)
    ]


@with_triton("progress")
def novelty(x: Tensor) -> Tensor:
    """(S, T, N, D) tokens -> (S, T): sum over a frame of the residual to the nearest token, wherever it is, of
    the frame before it; 0.9 N for the first."""
    s, frames, n, _ = x.shape
    sums = [torch.full((s, 1), 0.9 * n, device=x.device)]
    before = unit(x[:, 0])
    for t in range(1, frames):
        here = unit(x[:, t])
        near = snap(max_similarity(here, before))
        before = here
        sums.append((1 - near).clamp_min_(0).sum(1, keepdim=True))
    return torch.cat(sums, 1)


def emphasis(saliency: Tensor, power: float) -> Tensor:
    """(S, T, N) saliency >= 0 -> (S, T, N) its share of the frame's largest, to a power, at least 1e-6."""
    saliency = saliency.float().clamp_min(0)
    return (saliency / saliency.amax(2, keepdim=True).clamp_min(TINY)).pow(power).clamp_min(1e-6)


def keep_fixed(
    x: Tensor,
    counts: list[int],
    weight: Tensor | None = None,
    last: Tensor | None = None,
    window: int | None = None,
    cut: float | None = None,
) -> BoolTensor:
    """(S, T, N, D) tokens -> (S, T N) mask: counts[t] of frame t. `weight` (S, T, N); `last` (N,): take those
    tokens of a frame after all others."""
    s, frames, n, _ = x.shape
    most = sum(counts) if window is None else 2 * (window + 1) * max(counts)
    memory, chosen = Memory(x, window, cut, size=most if frames > 1 else 0), []
    for t, count in enumerate(counts):
        if not count:
            continue
        here = unit(x[:, t])  # frame by frame, while it is in the processor's cache
        near = memory.recall(here, t)
        if last is not None:
            near = near.masked_fill(last, LAST)
        told = cut is None and any(counts[0 if window is None else max(0, t - window) : t])
        picks = Picker(here, near, None if weight is None else weight[:, t], count, not told).take(count)
        chosen.append(picks + t * n)
        if t + 1 < frames:
            memory.append(rows(here, picks), t)
    mask = torch.zeros(s, frames * n, dtype=torch.bool, device=x.device)
    return mask.scatter_(1, torch.cat(chosen, 1), True)  # type: ignore[return-value]


def keep_counted(
    x: Tensor,
    counts: Tensor,
    total: int,
    weight: Tensor | None = None,
    window: int | None = None,
    cut: float | None = None,
) -> BoolTensor:
    """The same with counts (S, T) that only the device knows; each row sums to `total`. Nothing is read back.

    The host cannot know when an image comes to its next frame, so each image walks its own frames in *visits* of c
    picks, c twice the mean count: sum_t ceil(k_t / c) <= total / c + T visits are enough for any counts. What a visit
    picks beyond its quota is left out; as the order is nested, nothing else changes.
    The memory is a ring that holds every token, or the latest ones up to twice a window's fair share of them.
    """
    s, frames, n, _ = x.shape
    share = 2 * -(-total // frames)
    c = min(n, share)
    ring = c + (total if window is None else min(total, max(n, window * share)))
    memory = Memory(x, window, cut, size=ring)
    visits = counts.add(c - 1).div(c, rounding_mode="floor")
    ends = visits.cumsum(1)
    number = torch.arange((total + frames * (c - 1)) // c, device=x.device).repeat(s, 1)
    frame = torch.searchsorted(ends, number, right=True).clamp_max(frames - 1)
    turn = number - (ends - visits).gather(1, frame)  # 0 at the first visit of a frame
    quota = (counts.gather(1, frame) - turn * c).clamp(0, c)  # 0 once the image is through
    before = quota.cumsum(1) - quota
    slot = torch.arange(c, device=x.device)
    image = torch.arange(s, device=x.device)
    nowhere = s * frames * n
    mask = torch.zeros(
        nowhere + 1, dtype=torch.bool, device=x.device
    )  # flat, and one place for what is left out
    token = torch.arange(n, device=x.device)
    for q in range(number.shape[1]):
        at = frame[:, q]
        here = unit(x[image, at])  # (S, N, D)
        own = ((image * frames + at) * n).unsqueeze(1)
        near = memory.recall(here, at.unsqueeze(1), turn[:, q : q + 1] == 0)
        near = near.masked_fill(mask[own + token], TAKEN)
        picks = Picker(here, near, None if weight is None else weight[image, at], c).take(c)
        counted = slot < quota[:, q : q + 1]
        mask.scatter_(0, torch.where(counted, picks + own, nowhere).view(-1), counted.view(-1))
        memory.put(
            (before[:, q : q + 1] + slot) % ring, rows(here, picks), torch.where(counted, at.unsqueeze(1), -1)
        )
    return mask[:-1].view(s, -1)  # type: ignore[return-value]


class Follower:
    """Frames of S clips as they come, until nothing in them is farther than `eps` from what is kept.

    Only the memory's window is remembered. The host looks once every `CHUNK` picks at whether a frame is done.
    """

    def __init__(self, eps: float, least: int, window: int | None, cut: float | None) -> None:
        self.eps, self.least, self.window, self.cut = eps, least, window, cut
        self.memory: Memory | None = None
        self.frame = 0

    def update(self, x: Tensor, weight: Tensor | None = None, last: Tensor | None = None) -> BoolTensor:
        """(S, N, D) tokens of the next frame -> (S, N) mask of those that are new."""
        s, n, _ = x.shape
        x = unit(x)
        if self.memory is None:
            self.memory = Memory(x, self.window, self.cut)
        near = self.memory.recall(x, self.frame)
        if last is not None:
            near = near.masked_fill(last, LAST)
        picker, picks, gaps = Picker(x, near, weight), [], []
        for j in range(n):
            gaps.append(picker.gap())
            if j >= self.least and j % CHUNK == 0 and not bool((gaps[-1] > self.eps).any()):
                break
            picks.append(picker.next())
        mask = torch.zeros(s, n, dtype=torch.bool, device=x.device)
        if picks:
            order = torch.cat(picks, 1)
            new = torch.cat(gaps[: len(picks)], 1) > self.eps
            new |= torch.arange(order.shape[1], device=x.device) < self.least
            mask.scatter_(1, order, new)
            most = int(new.sum(1).max())
            self.memory.append(rows(x, order[:, :most]), self.frame, new[:, :most])
        self.frame += 1
        return mask  # type: ignore[return-value]


class OneClip:
    """A `Follower` for the frames of one clip."""

    def __init__(self, eps: float, least: int, window: int, cut: float | None) -> None:
        self.follower = Follower(eps, least, window, cut)

    def update(self, frame: Tensor) -> BoolTensor:
        """(N, D) tokens of any float dtype -> (N,) mask of those that are new."""
        with ranking(frame):
            return self.follower.update(frame.unsqueeze(0))[0]  # type: ignore[return-value]
