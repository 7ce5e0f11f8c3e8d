"""VidCom2: more for frames unlike the clip, and in each frame the tokens unlike it and the clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels import ranking, unit
from ..kernels.apportion import largest_remainder
from ..kernels.framing import frames_of
from ..kernels.segments import segment_mean
from ..tokens import Selection, VisualTokens
from ._fields import check_numbers
from .base import Reducer, register

WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)


@register("vidcom2")
@dataclass(frozen=True)
class VidCom2(Reducer):
    """Frames unlike the clip get more, and of each the tokens unlike it and the clip stay.

    Liu et al., 2025, arXiv:2505.14454 (EMNLP 2025). With y the unit rows of x (T frames of M tokens, D) on the
    `channels` share of D that varies least over the clip, and means of y as centres, one of the clip, T of frames:

        g(y, c)  = sum over a in {1/8, 1/4, 1/2, 1, 2} of exp(-|y - c|^2 / 2a)
        token    = g(y, clip) + g(y, its frame)                          the lowest of each frame stay
        frame    u_t = -mean over its tokens of g(y, clip),  p = softmax(u / tau)
        budget   k_t = r M_t (1 + p_t - mean p),  r = keep / N,  at least 1

    Paper and code differ, and this is the code's rule with an exact total: k_t is not rounded but shared out by
    largest remainder, within [1, M_t]; with fewer tokens than frames those of the largest k_t get one. Ties go to the
    lower channel, frame or token. `scores` (S, N) is minus the token's g, so that larger is better.

    A picture, crops and all, is one frame: its budget is `keep`, and the two centres are one. Separators stay out of
    the variances and centres and compete as tokens of the frame they end.
    Traps. tau = 0.01 makes p nearly one-hot, and still no frame gets over 2 r M while the others lose at most a
    share 1 / T: budgets are nearly even, "dynamic" is mild. Nothing is compared token with token, so copies of one
    odd token all stay; a fade to black is odd as well. The channels depend on the whole clip, so a clip cut short
    chooses others.
    """

    tau: float = 0.01
    channels: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, tau=(1e-4, 1e4), channels=(1e-6, 1))

    def quiet(self, x: Tensor, patch: Tensor | None) -> Tensor:
        """(S, N, D), (N,) -> (S, N, d) unit rows of the channels that vary least, in float32."""
        x = x.float()
        if patch is None:
            variance = x.var(1, unbiased=False)  # (S, D)
        else:
            weight = patch.float()[:, None] / patch.sum().clamp_min(1)
            variance = ((x - (x * weight).sum(1, keepdim=True)).square() * weight).sum(1)
        count = max(1, int(self.channels * x.shape[2]))
        few = variance.argsort(dim=1, stable=True)[:, :count]
        return unit(x.gather(2, few.unsqueeze(1).expand(-1, x.shape[1], -1)))

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        frames, n = frames_of(tokens), tokens.features.shape[1]
        sheet = frames.sheet()
        with ranking(tokens.features):
            y = self.quiet(tokens.features, frames.patch)
            middle = (
                y.mean(1) if frames.patch is None else segment_mean(y, frames.of * 0, 1, frames.patch)[:, 0]
            )
            y = sheet.lay(y)
            centres = middle.unsqueeze(1), sheet.means(y)  # (S, 1, d), (S, T, d)
            far = [(y - c.unsqueeze(2)).square_().sum(3) for c in centres]
            to_clip, to_frame = _kernel(torch.stack(far))  # each (S, T, W)
            alike = to_clip + to_frame
            u = sheet.means(to_clip.unsqueeze(3)).squeeze(2)  # (S, T)
            ratio = 1 - 1 / frames.count + (u / -self.tau).softmax(1)
            least = int(keep >= frames.count)
            due = ratio * frames.size  # times keep / n; what is above `least` is shared, in proportion
            quota = largest_remainder(due - least * n / keep, keep, frames.size, least)
            scores = -alike
            return Selection(sheet.best(scores, quota), scores=sheet.take_up(scores))


def _kernel(far: Tensor) -> Tensor:
    """Squared distances -> sum of Gaussians of all widths, elementwise."""
    rates = torch.tensor([-1 / (2 * a) for a in WIDTHS]).to(far.device, non_blocking=True)
    return (far.unsqueeze(-1) * rates).exp_().sum(-1)
