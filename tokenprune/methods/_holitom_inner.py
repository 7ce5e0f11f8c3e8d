"""The second part of HoliTom: inside the language model, half of what is left is merged into the other half."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import budget as _budget
from ..errors import TokenPruneError
from ..kernels import ranking
from ..kernels.anchors import nearest_anchor, pour
from ..kernels.ranks import group_rank
from ..tokens import Selection, Stage, VisualTokens
from .base import Reducer


@dataclass(frozen=True)
class InnerMerge(Reducer):
    """Tokens that the last prompt token looks at stay, the others are halved into the nearest of them.

    Part of `holitom`, arXiv:2505.21334. At the entry of `layer` the `keep` share of highest `attention` (S, N) stays;
    every other token b goes to the kept one a of the largest cosine of hidden states, a <- (a + b) / 2, one after the
    other in the order of the tokens. So of m tokens that went to a the j-th weighs 2^(j - m - 1), a itself 2^-m: a
    trap of the published rule, as a popular token ends as a mean of the last few that came to it.
    """

    stage: ClassVar[Stage] = "layer"
    query_aware: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})

    layer: float | int = 0.643
    budget: ClassVar[str] = "after"

    def cut_layers(self, num_layers: int) -> tuple[int, ...]:
        return _budget.cut_layers([self.layer], num_layers)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        if tokens.attention is None:
            raise TokenPruneError("holitom's inner merge needs the attention of the layer before it")
        s, n, _ = tokens.shape
        with ranking(tokens.attention):
            scores = tokens.attention.float()
            line = torch.arange(n, device=scores.device)
            keeps = group_rank(scores, torch.zeros_like(scores, dtype=torch.long)) < keep
            near = nearest_anchor(tokens.features, keeps, keep, torch.zeros(s, n, device=scores.device))
            owner = torch.where(keeps, line, near)
            turn = group_rank(keeps.float(), owner).float()  # 0 the kept one, then 1 to m
            many = torch.zeros_like(turn).scatter_reduce(1, owner, turn, "amax").gather(1, owner)
            weight = torch.exp2(turn - many - 1).where(~keeps, torch.exp2(-many))

        def merge(values: Tensor) -> Tensor:
            return pour(values, owner, weight)

        return Selection(keeps, merge(tokens.features), scores, owner, merge)  # type: ignore[arg-type]
