"""DivPrune: the most diverse subset of the visual tokens, by maximal smallest distance."""

from __future__ import annotations

from dataclasses import dataclass

from ..kernels import ranking, unit
from ..kernels.maxmin import max_min
from ..tokens import Selection, VisualTokens
from .base import Reducer, register


@register("divprune")
@dataclass(frozen=True)
class DivPrune(Reducer):
    """Max-min diverse subset: each token kept is as far as can be from those kept before.

    Alvar et al., 2025, arXiv:2503.02175 (CVPR 2025). With x (S, N, D) = `features` and d_ij = 1 - cos(x_i, x_j):

        first:      argmax_i min_{j != i} d_ij, the token with the farthest nearest neighbour
        then:       argmax_i min_{j kept} d_ij, until `keep` are kept

    A running minimum makes a step O(N) (O(N D) where the N x N cosines do not fit into one block), all images at
    once. Written from the formula. The sets are nested in `keep`; no text and no attention is read. `scores` are a
    token's distance to what was kept before it, at most 2; for dropped ones the distance to the nearest kept token.
    Ties, exact copies among them, go to the lower index.

    Deviations: none known; crops of one picture compete in one choice. Traps. Row separators are all the same
    vector and unlike any patch: one of them is kept early and the others last. Outliers are kept whatever they show.
    """

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        with ranking(tokens.features):
            picks = max_min(unit(tokens.features), keep)
        return Selection.of_indices(picks.index, tokens.shape[1], scores=picks.gain)
