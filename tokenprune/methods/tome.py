"""ToMe in one shot: tokens that look alike are averaged, pair by pair, until few enough are left."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import TokenPruneError
from ..kernels import ranking
from ..kernels.bipartite import bipartite_merge
from ..kernels.clusters import group_means
from ..kernels.newlines import newlines
from ..tokens import Selection, VisualTokens
from .base import Reducer, register

METRICS = ("features", "vision_features", "vision_keys")


@register("tome")
@dataclass(frozen=True)
class ToMe(Reducer):
    """Repeated bipartite merging of the most similar pairs before the language model.

    Bolya et al., 2022, arXiv:2210.09461 (ICLR 2023). A round, of n tokens in raster order:

        a, b     the tokens at even and at odd places
        link     each a to its most similar b, by the cosine of the tower's keys (mean over heads)
        merge    the r strongest links, r <= n / 2, by means weighted with the number of tokens in each

    Rounds go on until exactly `keep` are left; how many, and their r, follow from (N, keep). `share` is the largest
    part merged in one round: 0.5 is as few rounds as can be, less spares unlike pairs and takes longer. A merged token
    lives in the slot of its b. Means of means weighted so are means over all members, so `merge` is one linear map,
    `owner` the group of each token, and the sizes of all groups sum to N.

    Deviations. One shot on the tower's output (layer -2 in LLaVA), as tables of vision-language models use it, not a
    few tokens in every block; later rounds compare the mean of a group's keys, since no layer makes new ones; there
    is no proportional attention (log size), the language model is left as it is. metric="features" compares projected
    tokens, for towers that show no keys; "vision_features" what enters the projector. Row separators merge with each
    other first, and one that meets a patch is dropped (owner -1), not averaged. Traps. keep < N / 2 with share=0.5
    merges every a, however unlike its b.
    """

    metric: str = "vision_keys"
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.metric, str) or self.metric not in METRICS:
            raise TokenPruneError(f"metric={self.metric!r}: one of {', '.join(METRICS)}")
        share: Any = self.share
        if isinstance(share, bool) or not isinstance(share, numbers.Real) or not 0 < float(share) <= 0.5:
            raise TokenPruneError(f"share={share!r}: a number in (0, 0.5]")

    @property
    def needs(self) -> frozenset[str]:
        """What is compared, where the tower has to give it."""
        return frozenset() if self.metric == "features" else frozenset({self.metric})

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        source = getattr(tokens, self.metric)
        if source is None:
            raise TokenPruneError(f"metric={self.metric!r} is not there; metric='features' always is")
        with ranking(tokens.features):
            last = newlines(tokens)
            slot, label = bipartite_merge(source, keep, self.share, last)
            patches = slot.new_zeros(slot.shape).scatter_add(1, label, (~last).long())
            counts = ~last | (patches == 0).gather(1, label)
            weight = counts.float()
            owner = slot.gather(1, label).masked_fill(~counts, -1).scatter(1, slot, slot)

        def merge(values: Tensor) -> Tensor:
            means = group_means(values, label, keep, weight)
            return values.scatter(1, slot.unsqueeze(2).expand_as(means), means)

        return Selection.of_indices(
            slot, label.shape[1], features=merge(tokens.features), owner=owner, merge=merge
        )
