"""HoliTom: what stands still in the best windows of a clip is said once, the rest by tower attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from .. import budget as _budget
from ..errors import TokenPruneError
from ..kernels import ranking, unit
from ..kernels.absorb import centred_mean
from ..kernels.anchors import frame_peaks, nearest_anchor
from ..kernels.apportion import largest_remainder
from ..kernels.frames import latest_at
from ..kernels.framing import coords_of, frames_of
from ..kernels.motion import change
from ..kernels.ranks import chosen_first, group_rank
from ..kernels.windows import is_copy, still_windows
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

    Exact. Quotas go by largest remainder. Where `keep` is more than still places leave (keep > sum a), every frame
    also keeps still tokens, highest saliency first; these are not averaged into the window's mean.
    Choices. The saliency of a still place is its mean over the window. First frames stand for their windows, so they
    draw more of the budget and later frames of a still clip may keep nothing.
    inner: the share that a second merge inside the language model leaves, at `layer` (authors: 0.5 at 18 of 28), see
    `_holitom_inner`; None: the "w/o M" rows. `keep` is what the first part leaves, the layer average then is lower.
    A picture, crops and all, is one frame in which nothing stands still: it is ranked by saliency. Separators are
    never still, and compete with the saliency of their row.
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
        for part in self.parts()[1:]:
            plan |= part.schedule(plan[0], num_layers) or {}
        return plan

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        if tokens.saliency is None:
            raise TokenPruneError("holitom needs the attention of the vision tower")
        frames, n = frames_of(tokens), tokens.features.shape[1]
        most = math.floor(self.context * keep + 1e-9)
        with ranking(tokens.features):
            line, coords = torch.arange(n, device=tokens.features.device), coords_of(tokens)
            before = latest_at(coords, coords[:, 1] - 1)
            before = torch.where(frames.of - frames.of[before.clamp_min(0)] == 1, before, -1)
            alike = change(tokens.features, before) < 1 - self.tau
            found = still_windows(alike, before, frames.of, frames.count)
            head, copy, saliency = found.head, is_copy(found.head), tokens.saliency.float()
            together = centred_mean(head, 0.0)(saliency.unsqueeze(2)).squeeze(2)
            saliency = torch.where(copy, saliency, together)
            group = frames.groups(head)
            left = torch.zeros_like(found.start).scatter_add(1, group, (~copy).long())
            quota = largest_remainder(left, keep, frames.size)
            part = (quota * self.context + 1e-9).floor().long()
            best = group_rank(chosen_first(saliency, ~copy), group)
            keeps = best < (quota - part)[:, frames.of]
            once = torch.where(copy & ~keeps, head, line)
            near, anchor = torch.full_like(head, -1), torch.zeros_like(keeps)
            if most:
                open_ = ~copy & ~keeps
                still = centred_mean(once, 0.0)(tokens.features.float())
                peak = frame_peaks(still, frames, open_, self.neighbours)
                peak = torch.where(open_, peak, saliency).masked_fill(keeps, -float("inf"))
                place = group_rank(chosen_first(peak, open_), group)
                anchor = (place < part[:, frames.of]) & ~keeps
                keeps = keeps | anchor
                once = torch.where(keeps, line, once)
                still = unit(centred_mean(once, 0.0)(tokens.features.float()))
                near = nearest_anchor(still, anchor, most, group)
            then = torch.where(keeps, line, torch.where(copy, -1, near))
            in_time, in_space = centred_mean(once, 0.0), centred_mean(then, self.beta)
        merged, owner = in_space(in_time(tokens.features)), then.gather(1, once)
        return Selection(keeps, merged, saliency, owner, lambda values: in_space(in_time(values)))  # type: ignore[arg-type]
