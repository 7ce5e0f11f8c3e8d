"""V-CAST: budgets follow the curvature of the clip's path, tokens that stand out of their frame stay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..kernels import EPS, ranking, unit
from ..kernels.apportion import largest_remainder
from ..kernels.framing import Sheet, frames_of
from ..kernels.similarity import TINY
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
        sheet = frames.sheet()
        with ranking(tokens.features):
            x = sheet.lay(tokens.features).float()
            f = unit(sheet.means(x))
            weight = (curvature(f) / self.tau).softmax(1)
            least = min(self.min_k, keep // frames.count, frames.smallest)
            quota = largest_remainder(weight, keep, frames.size, least)
            size = torch.linalg.vector_norm(x, dim=3)
            away = 1 - (x * f.unsqueeze(2)).sum(3) / size.clamp_min(TINY)
            scores = away + _minmax(size, sheet)
            return Selection(sheet.best(scores, quota), scores=sheet.take_up(scores))


def curvature(f: Tensor) -> Tensor:
    """(S, T, D) path -> (S, T) one minus the cosine of the steps before and after; 1 at the ends."""
    step = unit(f[:, 1:] - f[:, :-1])
    turn = 1 - (step[:, 1:] * step[:, :-1]).sum(2)
    return pad(turn, (1, 1), value=1.0) if f.shape[1] > 1 else torch.ones_like(f[:, :, 0])


def _minmax(size: Tensor, sheet: Sheet) -> Tensor:
    """(S, T, W) -> (S, T, W) in [0, 1], from the smallest to the largest patch of each frame."""
    if sheet.patch is None:
        low, high = torch.aminmax(size, dim=2, keepdim=True)
        return (size - low) / (high - low + EPS)
    low = size.masked_fill(~sheet.patch, float("inf")).amin(2, keepdim=True)
    high = size.masked_fill(~sheet.patch, -float("inf")).amax(2, keepdim=True)
    alike = (size - low) / (high - low + EPS)
    return torch.where(torch.isfinite(low), alike, 0.0).clamp(0, 1)
