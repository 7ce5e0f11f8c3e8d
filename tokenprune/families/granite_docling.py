"""Granite Docling: pages as tiles with their row and column, the thumbnail last; a coarse and a fine connector."""

from __future__ import annotations

from torch import Tensor, nn

from . import family
from .base import Call, Family
from .shapes import Shape, flat_shape
from .tiles import opened_by_mark


@family
class GraniteDocling(Family):
    """The connector is part of the tower; `tile_fine_mask` says that a tile has four times as many tokens."""

    model_types = ("granite_docling",)
    projector_names = ("vision_model.connector",)
    merge_friendly = True

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        """The model hands over one feature block per batch row."""
        tile = composite.image_seq_len * (1 if call.get("tile_fine_mask") is None else 4)
        return [flat_shape(tile)] * (sum(lengths) // tile)  # type: ignore[operator]

    def same_image(self, ids: Tensor, starts: list[int], lengths: list[int]) -> list[int]:
        return opened_by_mark(ids, starts)
