"""EntropyPrune: tokens whose attention heads ask for different things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import budget as _budget
from ..errors import TokenPruneError
from ..kernels import ranking
from ..kernels.entropy import SOLVERS, matrix_entropy
from ..tokens import Selection, Stage, VisualTokens
from .base import Reducer, register


@register("entropyprune")
@dataclass(frozen=True)
class EntropyPrune(Reducer):
    """One cut early in the language model, by the spectral entropy of each token's query heads.

    Wang et al., 2026, arXiv:2602.17196, equations 8 and 11 to 14. With v_j (d_h) the H query heads of one token in
    layer k-1, after RoPE or before it (a rotation shared by the heads changes nothing):

        M_j = (v_j - mean_i v_i) / |v_j - mean_i v_i|      G = M M^T / H  (H x H)      score = -sum sigma ln sigma

    over the eigenvalues sigma of G, which are the non-zero ones of the d_h x d_h covariance. The `keep` highest
    stay; `queries` is (S, H, N, d_h), scores are (S, N) in nats (the authors divide by ln H). `layer` is the entropy
    collapse layer of the model: 2 in LLaVA-1.5 and NeXT, 1 in Qwen2.5-VL-7B by the authors; `kernels.entropy`
    has the curve it is found on.

    normalize=False, or compat="official", leaves out the division by the row length, as the released code does. The
    score is then tau (S - ln tau) with tau = tr G, which ranks by the size of the queries alone, largest or smallest
    first according to the scale of the model: not the method of the paper. solver="chebyshev" takes a polynomial
    for -x ln x instead of eigenvalues: a nearly equal ranking from matrix products alone.

    Deviations. float32, centred before the Gram, instead of float64 (differs by 2e-6; margins are 1e-3). Rows that are
    zero after centring stay zero (the paper divides 0 by 0): heads that agree score 0, so a model with a single
    head gets the first tokens. The count after the cut is rounded to nearest; the released code rounds down and
    keeps 29 of 576 where 30 come nearer to 64 on layer average. Ties go to the lower index.
    Traps. "Retain R" of the paper is the layer average, but 320 of LLaVA-NeXT's 2880 was counted after the cut in
    two columns of its table: budget="after". Its lead there over DART at the same layer is 0.4 points.
    """

    stage: ClassVar[Stage] = "layer"
    needs: ClassVar[frozenset[str]] = frozenset({"queries"})

    layer: float | int = 2
    budget: str = "average"
    normalize: bool = True
    solver: str = "eigvalsh"
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layer", _budget.check_layer(self.layer))
        _budget.check_budget(self.budget)
        if self.solver not in SOLVERS:
            raise TokenPruneError(f"solver={self.solver!r}: {' or '.join(map(repr, SOLVERS))}")
        if self.compat not in (None, "official"):
            raise TokenPruneError(f"compat={self.compat!r}: None or 'official'")

    def cut_layers(self, num_layers: int) -> tuple[int, ...]:
        return _budget.cut_layers([self.layer], num_layers)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        if tokens.queries is None:
            raise TokenPruneError("entropyprune needs the queries of the layer before its cut")
        with ranking(tokens.queries):
            scores = matrix_entropy(tokens.queries, self.normalize and self.compat is None, self.solver)
            return Selection.of_scores(scores, keep)
