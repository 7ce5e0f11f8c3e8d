"""VisPruner: the tokens the tower looks at, and a de-duplicated rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .. import kernels
from ..errors import TokenPruneError
from ..tokens import Selection, VisualTokens
from ._fields import check_choice, check_ints, check_numbers
from .base import Reducer, register


@register("vispruner")
@dataclass(frozen=True)
class VisPruner(Reducer):
    """Half by the vision tower's attention, half the least alike of the others.

    Zhang et al., 2024, arXiv:2412.01818 (ICCV 2025). With a (N,) = `saliency` and f (N, C) = `vision_features`:

        important: the floor(important_ratio keep) tokens of largest a
        others:    in order of falling a; in turns they are split alternately into even and odd places, and the even
                   ones with the largest max_j cos(f_i, f_j) to an odd one go, until exactly `keep` are left

    important_ratio = 1 is attention alone, the first version (FasterVLM), and needs no features; 0 is de-duplication
    alone, ordered by attention. The kept sets of two budgets are not nested. No text is read.

    Deviations. As in `flashvlm`, which takes this rest over: a turn drops a share `dedup` of what is left (at least
    `dedup_step`) instead of eight tokens, and while many are left compares only neighbours in raster order (`window`
    at least; None: all). compat="official" is the released schedule: eight a turn, all pairs. Crops of one picture
    share one budget (released: the base crop first, each crop by itself). Where a tower gives no features before
    the projector, the projected ones are compared. Traps: towers without registers attend to a few background
    tokens, and these then use up the important half.
    """

    important_ratio: float = 0.5
    dedup: float = 0.125
    dedup_step: int = 8
    window: int | None = 64
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, important_ratio=(0, 1), dedup=(0, 1))
        check_ints(self, dedup_step=(1, 2**20))
        if self.window is not None:
            check_ints(self, window=(1, 2**20))
        check_choice(self, "compat", None, "official")

    @property
    def needs(self) -> frozenset[str]:
        """Features only where something is de-duplicated."""
        return frozenset({"saliency"} if self.important_ratio == 1 else {"saliency", "vision_features"})

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        if tokens.saliency is None:
            raise TokenPruneError("vispruner needs the vision tower's attention")
        official, n = self.compat == "official", tokens.shape[1]
        with kernels.ranking(tokens.features):
            scores = tokens.saliency.float()
            order = scores.argsort(dim=1, descending=True, stable=True)
            first = math.floor(self.important_ratio * keep + 1e-9)
            kept = order[:, :first]
            if first < keep:
                source = tokens.features if tokens.vision_features is None else tokens.vision_features
                rest = kernels.bipartite_dedup(
                    kernels.unit(source),
                    order[:, first:],
                    keep - first,
                    share=0.0 if official else self.dedup,
                    step=8 if official else self.dedup_step,
                    window=None if official else self.window,
                )
                kept = torch.cat([kept, rest], 1)
            return Selection.of_indices(kept, n, scores=scores)
