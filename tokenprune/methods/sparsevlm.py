"""SparseVLM: what the words that matter to the picture look at, and a recycled rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import budget as _budget
from ..errors import TokenPruneError
from ..kernels import ranking
from ..kernels.clusters import density_peaks, group_means, rows
from ..kernels.raters import visual_words
from ..kernels.similarity import TINY
from ..tokens import Selection, Stage, VisualTokens
from .base import Reducer, register

MEMBERS = 10  # tokens of a recycled cluster, on average
RATERS = "sparsevlm.raters"


@register("sparsevlm")
@dataclass(frozen=True)
class SparseVLM(Reducer):
    """Several cuts by the attention of the question's visual words; part of what is cut is merged.

    Zhang et al., 2024, arXiv:2410.04417 (ICML 2025). With V (N, D) visual and T (T, D) question tokens:

        raters, once:  m = mean_n softmax_t(V T^T)  (T,); the words with m_t > mean m
        each cut:      score_n = mean over raters and heads of A[h, rater, n], A the attention of the layer before
        recycling:     of the tokens below the cut the floor(recycle * dropped) best are clustered by density peaks
                       into floor(recycle * dropped / 10) + 1 centres, each the score-weighted mean of its members

    Layers 2, 6 and 15 of 32, as shares of the depth. Published counts are lists made for 576 tokens ([300, 200, 118],
    [238, 108, 60], [66, 30, 17] for 192, 128, 64): near to half of what the cut before left, so the first is solved
    from `keep` (the layer average) and `ratio` = 0.5 gives the others: [391, 196, 98], [231, 115, 58], [70, 35, 18].

    Deviations. Nothing is appended: centres count among the `keep` and live in their own slot and position (the
    released code adds them behind the kept ones and packs positions again), at most half of `keep`. Raters come from
    the states entering the first cut, not from input embeddings, and from the question alone; they stay the same for
    later cuts (`memo`). Means, not sums, of a cluster's tokens: same direction, usual size. No noise in the clustering.
    The first version's counts from the rank of A and the later choice of 14 heads are left out. Words that are all
    alike all rate; an image without a question keeps an even spread. Traps: V T^T has no scale, so in hidden states
    a few channels of massive activation can decide; a recycled state sits at a position it was not computed for.
    """

    stage: ClassVar[Stage] = "layer"
    query_aware: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"text", "text_attention"})

    layers: tuple[float | int, ...] = (0.0625, 0.1875, 0.46875)
    budget: str = "average"
    ratio: float | None = 0.5
    recycle: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layers", _budget.check_layers(self.layers))
        _budget.check_budget(self.budget)
        object.__setattr__(self, "ratio", _budget.check_ratio(self.ratio))
        number = isinstance(self.recycle, (int, float)) and not isinstance(self.recycle, bool)
        if not number or not 0 <= self.recycle <= 1:
            raise TokenPruneError(f"recycle={self.recycle!r}: a share from 0 to 1")

    def cut_layers(self, num_layers: int) -> tuple[int, ...]:
        return _budget.cut_layers(self.layers, num_layers)

    def schedule(self, n: int, num_layers: int) -> dict[int, int] | None:
        cuts = self.cut_layers(num_layers)
        return _budget.many_cuts(self.keep, n, cuts, num_layers, self.budget, self.ratio)

    def scores(self, tokens: VisualTokens) -> Tensor:
        """(S, N) attention of the raters; without words a sequence whose largest values lie evenly spread."""
        n = tokens.features.shape[1]
        place = torch.arange(1, n + 1, device=tokens.features.device)
        spread = (place * 0.6180339887498949 % 1).float().expand(tokens.features.shape[0], -1)
        if tokens.text is None or tokens.text_attention is None or tokens.text.shape[1] == 0:
            return spread
        raters = tokens.memo.get(RATERS)
        if raters is None:
            raters = tokens.memo[RATERS] = visual_words(tokens.features, tokens.text, tokens.text_mask)
        score = torch.bmm(raters.float().unsqueeze(1), tokens.text_attention.float()).squeeze(1)
        return torch.where(
            raters.any(1, keepdim=True), score / raters.sum(1, keepdim=True).clamp_min(1), spread
        )

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        n = tokens.features.shape[1]
        merged = min(math.floor(self.recycle * (n - keep) / MEMBERS) + 1, keep // 2)
        with ranking(tokens.features):
            scores = self.scores(tokens)
            order = scores.argsort(dim=1, descending=True, stable=True)
            if self.recycle == 0 or keep == n or merged == 0:
                return Selection.of_indices(order[:, :keep], n, scores=scores)
            best, rest = order[:, : keep - merged], order[:, keep - merged :]
            pool = rest[:, : max(merged, math.floor(self.recycle * rest.shape[1]))]  # (S, R)
            groups = density_peaks(rows(tokens.features, pool), merged)
            slot = pool.gather(1, groups.centre)
            owner = torch.full_like(order, -1).scatter(1, pool, slot.gather(1, groups.label))
            weight = scores.gather(1, pool).clamp_min(TINY)

        def merge(values: Tensor) -> Tensor:
            means = group_means(rows(values, pool), groups.label, merged, weight)
            return values.scatter(1, slot.unsqueeze(2).expand_as(means), means)

        return Selection.of_indices(
            torch.cat([best, slot], 1),
            n,
            scores=scores,
            features=merge(tokens.features),
            owner=owner.scatter(1, best, best),
            merge=merge,
        )
