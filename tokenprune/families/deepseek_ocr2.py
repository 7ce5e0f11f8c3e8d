"""DeepSeek-OCR 2: learned queries read a SAM tower's map one after the other; crops, the whole page, a separator."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from ..tokens import NEWLINE
from . import family
from .base import Call, Family
from .shapes import Shape, joined_shape, row_shape


@family
class DeepseekOcr2(Family):
    """Its tokens are queries: they have an order and no place, so methods get no grid."""

    model_types = ("deepseek_ocr2",)
    resampled = True

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        crops = call.get("num_local_patches")
        counts = crops.tolist() if isinstance(crops, Tensor) else crops or [0] * len(lengths)
        queries = composite.vision_tower.query_768_resolution.num_embeddings  # type: ignore[union-attr]
        return [page(n, count, queries) for n, count in zip(lengths, counts)]  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def page(n: int, crops: int, queries: int) -> Shape:
    """`crops` times `queries` tokens, then those of the whole page, last the separator, which closes the page."""
    whole = row_shape(n - 1 - crops * queries)
    tiles = joined_shape((*[row_shape(queries)] * crops, whole))
    separator = torch.tensor([[0, 0, NEWLINE, NEWLINE]])
    return Shape(n, None, torch.cat([tiles.coords, separator]))  # type: ignore[arg-type]
