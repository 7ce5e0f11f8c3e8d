"""V-CAST: budgets follow the curvature of the clip's path, tokens that stand out of their frame stay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels import EPS, ranking, unit
from ..kernels.apportion import largest_remainder
from ..kernels.framing import Frames, frames_of
from ..kernels.ranks import group_rank
from ..tokens import Selection, VisualTokens
from ._fields import check_ints, check_numbers
from .base import Reducer, register


@register("vcast")
@dataclass(frozen=True)
class VCast(Reducer):
    """Frames where the clip turns get more; of each the tokens unlike its mean, and large, stay.

    arXiv:2603.27650 (V-CAST, 2026; released for Qwen3-VL). With x (T frames of M tokens, D) in float32:

        f_t = unit(mean of the frame's x)
        kappa_t = 1 - cos(f_t - f_{t-1}, f_{t+1} - f_t),  1 at both ends        w = softmax(kappa / tau)
        k_t = min_k + largest remainder of w (keep - T min_k), at most M_t, summing to keep
        score = 1 - cos(x, f_t) + minmax |x|,   minmax over the frame          the k_t highest of each frame stay

    Nothing is merged: every token stays what it was, where it was. The total is exact: what a full frame cannot take
    goes to the others in proportion to w, and where `keep` is below T min_k the floor is keep // T. Ties go to the
    lower frame or token. `scores` is (S, N).

    A picture, crops and all, is one frame and only the score decides. Separators stay out of means and minmax
    (theirs is cut to [0, 1]) and compete as tokens of the frame they end.
    Traps. A still clip has no direction: differences of zero count as a right angle, as the ends do, and all frames
    get the same. Frames that jitter around one picture turn back at every step, the largest kappa there is (2), so
    noise draws budget and a steady pan (kappa 0) gets the least. e^(2 / 0.7) = 17 bounds the ratio of two budgets.
    """

    tau: float = 0.7
    min_k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, tau=(1e-4, 1e4))
        check_ints(self, min_k=(0, 2**20))

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        frames = frames_of(tokens)
        with ranking(tokens.features):
            f = unit(frames.means(tokens.features))
            weight = (curvature(f) / self.tau).softmax(1)
            least = min(self.min_k, keep // frames.count, frames.smallest)
            quota = largest_remainder(weight, keep, frames.size, least)
            away = 1 - (unit(tokens.features) * f.index_select(1, frames.of)).sum(2)
            scores = away + _minmax(torch.linalg.vector_norm(tokens.features.float(), dim=2), frames)
            place = group_rank(scores, frames.groups(scores))
            return Selection(place < quota[:, frames.of], scores=scores)  # type: ignore[arg-type]


def curvature(f: Tensor) -> Tensor:
    """(S, T, D) path -> (S, T) one minus the cosine of the steps before and after; 1 at the ends."""
    step = unit(f[:, 1:] - f[:, :-1])
    turn = 1 - (step[:, 1:] * step[:, :-1]).sum(2)
    end = torch.ones_like(f[:, :1, 0])
    return torch.cat([end, turn, end], 1) if f.shape[1] > 1 else end


def _minmax(size: Tensor, frames: Frames) -> Tensor:
    """(S, N) -> (S, N) in [0, 1], from the smallest to the largest patch of each frame."""
    of = frames.groups(size)
    blank = torch.full((size.shape[0], frames.count), float("inf"), device=size.device)
    low = blank.scatter_reduce(1, of, size.masked_fill(~frames.patch, float("inf")), "amin")
    high = (-blank).scatter_reduce(1, of, size.masked_fill(~frames.patch, -float("inf")), "amax")
    low, high = low.gather(1, of), high.gather(1, of)
    alike = (size - low) / (high - low + EPS)
    return torch.where(torch.isfinite(low), alike, 0.0).clamp(0, 1)
