"""Cutting clips where they change, and choosing a spread-out subset of each piece, for all pieces at once."""

from __future__ import annotations

import torch
from torch import BoolTensor, LongTensor, Tensor

from ..budget import share_out
from .clusters import group_means, rows
from .frames import is_patch, one_before
from .motion import change, momentum
from .segments import segment_mean
from .similarity import BLOCK_BYTES, unit

TAKEN = -4.0
"""Distance of a token that has been picked: below that of any other."""


def frame_change(x: Tensor, coords: Tensor, frame: Tensor, frames: int, alpha: float | None = None) -> Tensor:
    """(S, N, D), (N, 4), (N,) frame of each token in [0, frames) -> (S, frames) how much each differs from the last.

    With alpha: the mean over places of the smoothed difference's norm (`motion.momentum`), 0 for the first frame.
    None: 1 - cosine of the frames' mean tokens, `motion.NONE` for the first.
    """
    if alpha is None:
        centre = segment_mean(x.float(), frame, frames, is_patch(coords).float())
        return change(centre, torch.arange(frames, device=x.device) - 1)
    before = one_before(coords, x)
    seen = (before >= 0).float()
    size = torch.zeros(frames, device=x.device).index_add(0, frame, seen).clamp_min(1)
    norms = momentum(x, before, alpha) * seen
    return torch.zeros(x.shape[0], frames, device=x.device).index_add(1, frame, norms) / size


def peaks(score: Tensor, frames: Tensor, count: Tensor | int, most: int, radius: int) -> BoolTensor:
    """(S, F) scores of frames, () real frames, wanted -> (S, F): the largest, by non-maximum suppression.

    Frames 1 .. frames - 1 are candidates. The largest is taken (the earlier on a tie), those at most `radius` away
    are out, and so on, `count` <= `most` times or until none is left.
    """
    index = torch.arange(score.shape[1], device=score.device)
    left = torch.where((index >= 1) & (index < frames), score, float("-inf"))
    found = torch.zeros_like(score, dtype=torch.bool)
    for i in range(most):
        best = left.argmax(1, keepdim=True)
        taken = (left.gather(1, best) > float("-inf")) & (count > i)
        found = found | ((index == best) & taken)
        left = left.masked_fill((index - best).abs() <= radius, float("-inf"))
    return found  # type: ignore[return-value]


def most_turns(keep: int, cubes: int, frame: int, radius: int) -> int:
    """The largest equal share of `keep` that one of the cubes of a clip can get, wherever `peaks` has cut it.

    The others are smallest with one frame of `frame` tokens at both ends and radius + 1 frames in between.
    """
    others = [frame] * min(2, cubes - 1) + [(radius + 1) * frame] * (cubes - 3)
    return share_out([1.0] * cubes, keep, [keep, *others])[0]


def own_cosine(x: Tensor, centre: Tensor, group: Tensor, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """(S, N, D), (S, C, D) unit rows, (S, N) groups -> (S, N): cosine of each token with its own group's row."""
    s, n, _ = x.shape
    across = centre.transpose(1, 2)
    step = max(1, block_bytes // (4 * s * centre.shape[1]))
    parts = [
        torch.bmm(x[:, i : i + step], across).gather(2, group[:, i : i + step].unsqueeze(2)).squeeze(2)
        for i in range(0, n, step)
    ]
    return torch.cat(parts, 1)


def farthest_ranks(
    x: Tensor, group: Tensor, groups: int, steps: int, block_bytes: int = BLOCK_BYTES
) -> LongTensor:
    """(S, N, D) unit rows, (S, N) groups in [0, groups) -> (S, N) the turn in which each is picked, `steps` for never.

    In every group at once: first the token nearest to the group's mean, then in each turn the one farthest, by
    1 - cosine, from those picked before it; ties to the lower index. A group that is used up picks what it has
    picked before, and an empty one what group 0 picks, which has to have a token: neither changes anything.
    """
    s, n, _ = x.shape
    mean = group_means(x, group, groups, torch.ones(s, n, device=x.device))
    score = own_cosine(x, unit(mean), group)
    member = group.unsqueeze(1) == torch.arange(groups, device=x.device).unsqueeze(1)  # (S, G, N)
    member = torch.where(member.any(2, keepdim=True), member, member[:, :1])
    apart = None  # distances where they fit: from other groups infinite, and below all where a token is taken
    if 4 * s * n * n <= block_bytes:
        apart = torch.bmm(x, x.transpose(1, 2)).neg_().add_(1)
        apart.masked_fill_(group.unsqueeze(1) != group.unsqueeze(2), float("inf"))
        apart.diagonal(0, 1, 2).fill_(TAKEN)

    def away(pick: Tensor) -> Tensor:
        """(S, G) picks -> (S, N) distance to the pick of a token's own group."""
        if apart is not None:
            return rows(apart, pick).amin(1)
        alike = torch.bmm(rows(x, pick), x.transpose(1, 2))
        return torch.where(member, 1 - alike, float("inf")).amin(1).scatter(1, pick, TAKEN)

    far, picks = score, []
    for step in range(steps):
        picks.append(torch.where(member, far.unsqueeze(1), -float("inf")).argmax(2))
        if step + 1 < steps:
            far = torch.minimum(far, away(picks[-1])) if step else away(picks[-1])
    turn = torch.arange(steps, device=x.device).repeat_interleave(groups).expand(s, -1)
    return torch.full_like(group, steps).scatter_reduce(1, torch.cat(picks, 1), turn, "amin")  # type: ignore[return-value]
