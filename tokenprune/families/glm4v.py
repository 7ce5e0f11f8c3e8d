"""GLM-4.1V, GLM-4.6V, GLM-OCR: Qwen-VL's packing, merged by a strided convolution; videos carry the image id."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import family
from .qwen_vl import QwenVL


@family
class Glm4v(QwenVL):
    """As Qwen-VL; the convolution's input is already cut into merged cells."""

    model_types = ("glm4v", "glm46v", "glm_ocr")
    projector_names = ("visual.downsample",)

    def placeholder_id(self, config: Any, modality: str) -> int | None:
        return super().placeholder_id(config, "image")

    def patch_features(self, features: Tensor) -> Tensor:
        return features.flatten(2).transpose(1, 2).flatten(0, 1)  # (N, C, m, m) -> (N m m, C)
