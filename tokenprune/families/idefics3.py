"""Idefics3 and SmolVLM: crops with row and column markers as text between them, the whole picture last."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from . import family
from .base import Family
from .tiles import closed_by_mark


@family
class Idefics3(Family):
    """The model hands over one feature block per batch row; a crop has (image / patch / scale)^2 tokens."""

    model_types = ("idefics3",)
    merge_friendly = True

    def lengths(self, composite: nn.Module, modality: str, features: Any) -> list[int]:
        vision = composite.config.vision_config
        crop = (vision.image_size // vision.patch_size // composite.config.scale_factor) ** 2
        total = sum(super().lengths(composite, modality, features))
        return [crop] * (total // crop)

    def same_image(self, ids: Tensor, starts: list[int], lengths: list[int]) -> list[int]:
        return closed_by_mark(ids, starts)


@family
class SmolVLM(Idefics3):
    """As Idefics3, and videos, whose frames are images of one crop to the model.

    Neither `pixel_values` nor the placeholders tell them from images. The processor's words before a frame do
    ("Frame from 00:03:"), so with `patch_model(..., processor=...)` the frames are one video; without a processor
    nobody can read those words and each frame is an image.
    """

    model_types = ("smolvlm",)
    frame_label = r"Frame from \d+:\d+:"
