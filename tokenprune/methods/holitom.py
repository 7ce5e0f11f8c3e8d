"""HoliTom: what stands still in the best windows of a clip is said once, the rest by tower attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from .. import budget as _budget
from ..errors import TokenPruneError
from ..kernels import ranking
from ..kernels.absorb import centred_mean
from ..kernels.anchors import frame_peaks, nearest_anchor
from ..kernels.clusters import group_means
from ..kernels.framing import Frames, frame_before, frames_of, places_of
from ..kernels.motion import change
from ..kernels.windows import still_heads
from ..tokens import Selection, VisualTokens
from ._fields import check_ints, check_numbers
from ._holitom_inner import InnerMerge
from .base import Reducer, register


@register("holitom")
@dataclass(frozen=True)
class HoliTom(Reducer):
    """Tokens that stand still are averaged over their window, the rest goes by tower attention.

    Shao et al., 2025, arXiv:2505.21334 (NeurIPS 2025). x is (T frames of M tokens, D), i a place, in float32:

        alike(t, i) = cos(x_{t,i}, x_{t+1,i}) > tau
        windows tile the clip and maximise the sum of |{i: alike(t, i) for all t in [s, e)}| (e - s) over them
        still places of a window: one token, their mean over the window, in its first frame
        of the a_t tokens left in frame t stay keep a_t / sum a: the highest saliency, and of these quotas a share
        `context` as density peaks (`neighbours` nearest) that what is left of their frame is merged into,
        w anchor + (1 - w) mean of the n others, w = max(1 / (n + 1), beta); beta = 0 is the plain mean

    The windows are the best of all (dynamic programming over frames, `kernels.windows`); of equal ones those that
    begin last. tau is 0.8, and 0.65 for a tenth of the tokens; the authors' `context` is 0: the rest is dropped.
    `owner` (S, N) leads from a still token to its window's first frame where that one stays, -1 is dropped.

    Exact. The total is shared out by `Sheet.shared`. Where `keep` is more than sum a, every frame also keeps still
    tokens, highest saliency first; these are not averaged into the window's mean.
    Choices. The saliency of a still place is its mean over the window. First frames stand for their windows: they
    draw more of the budget and later frames of a still clip may keep nothing.
    inner: the share that a second merge inside the language model leaves, at `layer` (authors: 0.5 at 18 of 28), see
    `_holitom_inner`; None: the "w/o M" rows. `keep` is what the first part leaves, the layer average then is lower.
    A picture, crops and all, is one frame in which nothing stands still. Separators never do, and have saliency too.
    Traps. A pan leaves nothing still. Only neighbours are compared, so small steps can drift far. Tokens of many
    moments share one time position, which M-RoPE models notice.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"saliency"})

    tau: float = 0.8
    context: float = 0.0
    neighbours: int = 7
    beta: float = 0.6
    inner: float | None = None
    layer: float | int = 0.643

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, tau=(-1, 1), context=(0, 1), beta=(0, 1))
        check_ints(self, neighbours=(1, 2**20))
        if self.inner is not None:
            check_numbers(self, inner=(1e-6, 1))
        object.__setattr__(self, "layer", _budget.check_layer(self.layer))

    def parts(self) -> tuple[Reducer, ...]:
        return (self,) if self.inner is None else (self, InnerMerge(float(self.inner), self.layer))

    def schedule(self, n: int, num_layers: int) -> dict[int, int] | None:
        plan = {0: _budget.count(self.keep, n)}
        return plan if self.inner is None else plan | (self.parts()[1].schedule(plan[0], num_layers) or {})

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        if tokens.saliency is None:
            raise TokenPruneError("holitom needs the attention of the vision tower")
        x, frames = tokens.features, frames_of(tokens)
        sheet, most = frames.sheet(), math.floor(self.context * keep + 1e-9)
        line = torch.arange(x.shape[1], device=x.device)
        with ranking(x):
            head = self.heads(tokens, frames, line)
            copy, saliency = head != line, tokens.saliency.float()
            copies = sheet.lay_mask(copy)
            saliency = saliency.scatter_reduce(1, head, saliency, "mean", include_self=False)
            rank = sheet.ranks(sheet.lay(saliency), last=copies)
            keeps = sheet.shared(rank, (frames.size - copies.sum(2)).clamp_min(1e-6), keep)
            once = torch.where(copy & ~keeps, head, line)
            in_time = partial(group_means, label=once, count=len(line), weight=torch.ones_like(saliency))
            then = torch.where(keeps, line, -1)
            if most:
                quota = sheet.lay_mask(keeps).sum(2)
                part = (quota * self.context + 1e-9).floor().long()
                salient = sheet.take_up(rank < (quota - part).unsqueeze(2))
                hidden, means = copy | salient, in_time(x.float())
                peak = frame_peaks(means, sheet, hidden, self.neighbours)
                peak = sheet.ranks(peak, last=sheet.lay_mask(hidden)) < part.unsqueeze(2)
                anchor = sheet.take_up(peak) & ~hidden
                keeps = salient | anchor | copy & keeps
                near = nearest_anchor(means, anchor, most, frames.groups(head))
                then = torch.where(keeps, line, near.masked_fill(copy, -1))
            in_space = centred_mean(then, self.beta) if most else lambda values: values

        def merge(values: Tensor) -> Tensor:
            return in_space(in_time(values))

        return Selection(keeps, merge(x), saliency, then.gather(1, once), merge)  # type: ignore[arg-type]

    def heads(self, tokens: VisualTokens, frames: Frames, line: Tensor) -> Tensor:
        """(S, N) for each token that stands still in its window the one in the window's first frame, else itself."""
        if frames.count == 1:
            return line.expand(tokens.features.shape[:2])
        alike = change(tokens.features, frame_before(tokens, frames)) < 1 - self.tau
        return still_heads(alike, places_of(tokens, frames), frames.of, line)
