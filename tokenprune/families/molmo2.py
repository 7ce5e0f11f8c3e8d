"""Molmo 2: features are added to the placeholders' embeddings; the whole picture, then it again in high resolution."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from . import family
from .base import Call, Family
from .shapes import Shape, grid_shape, two_grids


@family
class Molmo2(Family):
    """An adapter pools patches by attention inside small windows, so tokens keep their places.

    `*_grids` says how many tokens there are, `*_token_pooling` (tokens, window) which patches each one is made of.
    Column marks are text. Videos carry the images' placeholder.
    """

    model_types = ("molmo2",)

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        if modality == "video":
            return [grid_shape(*grid) for grid in call["video_grids"].tolist()]
        return [two_grids(*grid) for grid in call["image_grids"].tolist()]

    def saliency_layer(self, composite: nn.Module, depth: int) -> int:
        config: Any = composite.config
        return max(layer % depth for layer in config.adapter_config.vision_feature_layer)

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        pooling = call[f"{modality}_token_pooling"].to(patches.device).flatten(0, -2)
        pooling = pooling[(pooling >= 0).any(1)]  # rows without any patch are padding
        there = (pooling >= 0)[..., None]
        windows = patches.flatten(0, -2)[pooling.clamp(min=0)] * there
        return list((windows.sum(1) / there.sum(1)).split([s.n for s in shapes]))
