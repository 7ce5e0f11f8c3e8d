"""GOT-OCR 2.0: a SAM tower, whose attention nobody can observe, and tiles that touch as in InternVL."""

from __future__ import annotations

from torch import Tensor

from . import family
from .base import Family
from .tiles import joined_by_gap


@family
class GotOcr2(Family):
    """The projector shrinks the tower's map by two strided convolutions. Pages given at once count as one picture."""

    model_types = ("got_ocr2",)
    merge_friendly = True

    def same_image(self, ids: Tensor, starts: list[int], lengths: list[int]) -> list[int]:
        return joined_by_gap(starts, lengths, gap=0)

    def patch_features(self, features: Tensor) -> Tensor:
        return features.flatten(2).transpose(1, 2)  # (tiles, C, h, w) -> (tiles, h w, C)
