"""FastV: what the last prompt token looks at in an early layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import budget as _budget
from ..errors import TokenPruneError
from ..kernels import ranking
from ..tokens import Selection, Stage, VisualTokens
from .base import Reducer, register


@register("fastv")
@dataclass(frozen=True)
class FastV(Reducer):
    """One cut early in the language model, by the attention of the last prompt token.

    Chen et al., 2024, arXiv:2403.06764. With A (H, L, L) the attention of layer k-1:

        score_n = mean_h A[h, last, n]      the `keep` highest visual tokens stay, at their own positions

    `attention` (S, N) is that row, computed alone (O(L d)), so the model keeps its fast attention. The paper's text
    says attention received from all tokens, its code takes the last row; so do we. Defaults of both: layer 2, half
    of the tokens after the cut, which is `keep=0.5, budget="after"` here.

    Fair use. By default `keep` is the layer average: 128 of 576 in a 32-layer model are 98 after the cut, and the
    layers before it are paid for. Tables that give FastV R tokens after the cut, or the row of an old re-run, are
    not comparable. Traps. The last prompt token is often a template token, not the question; early attention
    favours the end of the image (the recency of RoPE); with left padding "last" is the last real token, which is
    the hooks' affair.
    """

    stage: ClassVar[Stage] = "layer"
    query_aware: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})

    layer: float | int = 2
    budget: str = "average"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layer", _budget.check_layer(self.layer))
        _budget.check_budget(self.budget)

    def cut_layers(self, num_layers: int) -> tuple[int, ...]:
        return _budget.cut_layers([self.layer], num_layers)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        if tokens.attention is None:
            raise TokenPruneError("fastv needs the attention of the layer before its cut")
        with ranking(tokens.attention):
            return Selection.of_scores(tokens.attention.float(), keep)
