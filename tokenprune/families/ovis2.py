"""Ovis 2: the tower turns cells of patches into a distribution over visual words; the thumbnail comes first."""

from __future__ import annotations

from torch import Tensor

from . import family
from .base import Family
from .shapes import Shape, joined_shape
from .tiles import joined_by_gap


@family
class Ovis2(Family):
    """One indicator (grid, column, row) between two tiles of a picture; indicators are text and stay.

    What stands for the projector's input are cells of `hidden_stride`^2 patches side by side, one a token.
    """

    model_types = ("ovis2",)
    projector_names = ("vision_tower.head_linear",)
    merge_friendly = True

    def same_image(self, ids: Tensor, starts: list[int], lengths: list[int]) -> list[int]:
        return joined_by_gap(starts, lengths, gap=1)

    def joined(self, tiles: tuple[Shape, ...]) -> Shape:
        return joined_shape(tiles, thumbnail=0)
