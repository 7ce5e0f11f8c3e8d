"""PyramidDrop: several cuts, each by what the last prompt token looks at there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import budget as _budget
from ..errors import TokenPruneError
from ..kernels import ranking
from ..tokens import Selection, Stage, VisualTokens
from .base import Reducer, register


@register("pyramiddrop")
@dataclass(frozen=True)
class PyramidDrop(Reducer):
    """Several cuts down the language model, each by the attention of the last prompt token.

    Xing et al., 2024, arXiv:2410.17247. At cut i of m, with A the attention (H, L, L) of the layer before it:

        score_n = mean_h A[h, last, n]   over the tokens still alive      the highest n lambda^i of n stay

    The published numbers (layers 8, 16, 24 of 32, lambda 0.5: 288, 144, 72 of 576, 270 on average) are the defaults
    here, `layers` being shares of the depth. `keep` is the layer average, and lambda is solved from it: the one whose
    rounded counts come nearest. budget="after" makes `keep` the share left by the last cut instead. With a `ratio`
    every cut but the first keeps that share of what reaches it, and only the first is solved.

    Fair use. With a first cut at a quarter of the depth nothing below a quarter on average exists; smaller budgets
    need earlier `layers`, such as (2, 8, 16), and tables at 128 or 64 of 576 have changed them.
    Deviations. The authors run layer k's own norm and projections for the score; we read the row that layer k-1 has
    computed. Their query is the last token of the instruction, ours the last of the prompt. Positions stay as they
    are (they pack them again). Scores of dropped tokens do not return at a later cut.
    """

    stage: ClassVar[Stage] = "layer"
    query_aware: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})

    keep: float | int = 0.46875
    layers: tuple[float | int, ...] = (0.25, 0.5, 0.75)
    budget: str = "average"
    ratio: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layers", _budget.check_layers(self.layers))
        _budget.check_budget(self.budget)
        object.__setattr__(self, "ratio", _budget.check_ratio(self.ratio))

    def cut_layers(self, num_layers: int) -> tuple[int, ...]:
        return _budget.cut_layers(self.layers, num_layers)

    def schedule(self, n: int, num_layers: int) -> dict[int, int] | None:
        cuts = self.cut_layers(num_layers)
        return _budget.many_cuts(self.keep, n, cuts, num_layers, self.budget, self.ratio)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        if tokens.attention is None:
            raise TokenPruneError("pyramiddrop needs the attention of the layers before its cuts")
        with ranking(tokens.attention):
            return Selection.of_scores(tokens.attention.float(), keep)
