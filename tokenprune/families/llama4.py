"""Llama 4: no base model, a complete text model inside, tiles with separators, the class token behind the patches."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import family
from .base import Family
from .tiles import closed_by_mark


@family
class Llama4(Family):
    """`get_image_features` stops before the last projection, which keeps every token; an adapter merged the patches."""

    model_types = ("llama4",)
    projector_names = ("vision_model.vision_adapter",)
    class_token = -1
    merge_friendly = True

    def features(self, output: Any) -> Any:
        return output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", output)

    def same_image(self, ids: Tensor, starts: list[int], lengths: list[int]) -> list[int]:
        return closed_by_mark(ids, starts)
