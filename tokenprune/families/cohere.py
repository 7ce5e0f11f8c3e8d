"""Aya Vision and Cohere2 Vision (Command A Vision): tiles with a mark before or behind each, the thumbnail last."""

from __future__ import annotations

from torch import Tensor

from . import family
from .base import Family
from .tiles import closed_by_mark, joined_by_gap


@family
class AyaVision(Family):
    """`TILE_1`, `TILE_2` ... before the tiles of a picture and `TILE_GLOBAL` before its thumbnail, or the whole."""

    model_types = ("aya_vision",)
    merge_friendly = True

    def same_image(self, ids: Tensor, starts: list[int], lengths: list[int]) -> list[int]:
        return closed_by_mark(ids, starts)


@family
class Cohere2Vision(Family):
    """One line break behind each tile; between two pictures stand at least that, an end and a begin."""

    model_types = ("cohere2_vision",)
    merge_friendly = True

    def same_image(self, ids: Tensor, starts: list[int], lengths: list[int]) -> list[int]:
        return joined_by_gap(starts, lengths, gap=1)
