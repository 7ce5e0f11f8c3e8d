"""Average pooling to any number of cells: the merging baseline."""

from __future__ import annotations

from dataclasses import dataclass

from ..kernels import token_cells
from ..tokens import Selection, VisualTokens
from .base import Reducer, register


@register("pool")
@dataclass(frozen=True)
class Pool(Reducer):
    """Average pooling of the grid to exactly `keep` cells, each living in its central token.

    Adaptive average pooling reaches only counts h' w'. Here each frame of each crop is cut into bands of about
    sqrt(N / keep) rows, the cells are shared over the bands by cumulative rounding (they sum exactly), and a band is
    cut, column after column, into runs of equal size up to one token: compact cells, average pooling proper where it
    divides, the unchanged input at keep = N. Cells cross a frame or a crop only when there are fewer cells than
    frames.

        features[slot_c] = mean of features over the patches of cell c      owner_i = slot_cell(i)

    Row separators (newlines) count as tokens but are not averaged with patches: one that shares its cell with a
    patch is dropped (owner -1), and cells made of separators alone, which appear only when `keep` is near N, keep
    their mean. The cells depend on coords (N, 4) alone, so all S images of a group share them and nothing is read
    back from the device. `merge` is that linear map for any (S, N, D'); rows outside the slots hold their cell's
    mean too.
    """

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return token_cells(tokens, keep).merged(tokens)
