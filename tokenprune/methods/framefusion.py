"""FrameFusion: in early layers a token like the one before it in time is merged into it, then one cut by importance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .. import budget as _budget
from ..errors import TokenPruneError
from ..kernels import ranking
from ..kernels.absorb import centred_mean
from ..kernels.anchors import runs
from ..kernels.frames import one_before
from ..kernels.ranks import group_rank
from ..tokens import Selection, Stage, VisualTokens
from ._fields import check_ints, check_numbers
from .base import Reducer, register

STATE, LAYER, ENTRY = "framefusion.state", "framefusion.layer", "framefusion.entry"


@register("framefusion")
@dataclass(frozen=True)
class FrameFusion(Reducer):
    """Merges runs of like tokens along time, layer after layer, then cuts once by attention received.

    Fu et al., 2025, arXiv:2501.01986 (ICCV 2025). A place of the picture is a chain of its tokens still alive, in time.
    At the entry of layers 0, 1, 2, ... with x the hidden states there, in float32:

        link:  cos(x_t, the token before it in its chain) >= tau           a run of links becomes its first token,
               the mean of the run; s_i is the share of all tokens that went this way

    until s_i < `stop`. At the layer after that, n merges being done, one cut keeps 1 - r of what is left, by the
    mean attention received in the layer before (`received`, S x N), so that the layer average is c = keep:

        r = 1 - (L c - sum_i prod_{j <= i} (1 - s_j)) / ((L - n) prod_i (1 - s_i))

    which is keeping (L c N - tokens paid for so far) / (L - n), as computed here. Content decides the counts on the way
    (`exact` is False), the average is met to rounding; `keep` is the average over layers of this model.

    Two parts: layer 0 is an input stage, layers 1 to `merges` merge again or cut. `merges` is a cap of ours, as each
    of these layers computes the attention received, needed or not. At the last of them, or where one more layer
    would leave less than a token for each later one, the cut comes whatever the share.
    A picture has no chains: it is cut at layer 1. Separators are never merged. A merged token keeps the place of the
    run's first; each of its tokens counts once in the mean, also one that was merged before.
    Traps. A still clip may merge below `keep`; nothing is given back. Where layer 0 alone costs more than `keep`, one
    token stays. Cosines of hidden states live off a few massive channels: deeper down everything is alike. Neighbours
    are compared, so the ends of a run may differ entirely.
    """

    stage: ClassVar[Stage] = "layer"
    exact: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"received"})

    keep: float | int = 0.3
    tau: float = 0.6
    stop: float = 0.1
    merges: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, tau=(-1, 1), stop=(0, 1))
        check_ints(self, merges=(1, 2**10))

    def parts(self) -> tuple[Reducer, ...]:
        return (_AtInput(**self.hyper()), self)

    def cut_layers(self, num_layers: int) -> tuple[int, ...]:
        return tuple(range(1, max(1, min(self.merges, num_layers - 1)) + 1))

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        (s, n, _), layer, depth, memo = tokens.shape, tokens.layer, tokens.num_layers, tokens.memo
        if STATE not in memo or memo[LAYER] >= layer:  # the first look at this prefill
            start = torch.tensor([layer * n, 1.0, 0.0], device=tokens.features.device)
            memo[STATE], memo[LAYER], memo[ENTRY] = start.expand(s, -1), layer, n
        paid, share, done = memo[STATE].unbind(1)
        paid = paid + n * (layer - memo[LAYER])
        with ranking(tokens.features):
            line = torch.arange(n, device=tokens.features.device)
            head = runs(tokens.features, one_before(tokens.coords, tokens.features), self.tau)
            merged = head == line
            left = _budget.count(self.keep, memo[ENTRY]) * depth - paid  # tokens times layers
            over, scores = done > 0, None
            cut = torch.zeros_like(over)
            if layer > 0:
                if tokens.received is None:
                    raise TokenPruneError("framefusion needs the attention received before its cut")
                late = layer >= self.cut_layers(depth)[-1]
                cut = ((share < self.stop) | (left - n < depth - layer - 1) | late) & ~over
                scores = tokens.received.float()
                quota = (left / (depth - layer) + 0.5).floor().clamp(1, n)
                chosen = group_rank(scores, torch.zeros_like(head)) < quota.unsqueeze(1)
                merged = torch.where(cut.unsqueeze(1), chosen, merged | over.unsqueeze(1))
                head = torch.where((cut | over).unsqueeze(1), line, head)
            owner = torch.where(merged | (head != line), head, -1)
            share = 1 - merged.sum(1) / n
            memo[STATE] = torch.stack([paid, share, (over | cut).float()], 1)
            memo[LAYER] = layer
        merge = centred_mean(owner, 0.0)
        return Selection(merged, merge(tokens.features), scores, owner, merge)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _AtInput(FrameFusion):
    """The first merge, of the tokens as the language model receives them."""

    stage: ClassVar[Stage] = "input"
    needs: ClassVar[frozenset[str]] = frozenset()

    def parts(self) -> tuple[Reducer, ...]:
        return (self,)

    def cut_layers(self, num_layers: int) -> tuple[int, ...]:
        return (0,)
