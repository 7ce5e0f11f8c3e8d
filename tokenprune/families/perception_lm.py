"""Perception LM: a thumbnail and tiles that touch, frames of a video encoded as if they were tiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import family
from .base import Call, Family, pool_to_grid
from .shapes import Shape, clip_shape, flat_shape, joined_shape


@family
class PerceptionLM(Family):
    """`pixel_values` (images, tiles, 3, H, W): all images of a call have the same number of tiles."""

    model_types = ("perception_lm",)
    merge_friendly = True

    def modality(self, method: str, call: Call, forward: Call) -> str:
        """Videos are encoded by get_image_features, too; only the model's own call tells them from images."""
        videos = forward.get("pixel_values_videos")
        return "video" if videos is not None and call.get("pixel_values") is videos else method

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        images, tiles = call["pixel_values"].shape[:2]
        tile = flat_shape(lengths[0])
        if modality == "video":
            return [clip_shape(tile, tiles)] * images
        return [joined_shape((tile,) * tiles, thumbnail=0) if tiles > 1 else tile] * images

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        tiles = len(patches) // len(shapes)
        pooled = torch.stack([pool_to_grid(p, shapes[0].n // tiles) for p in patches])
        return list(pooled.unflatten(0, (-1, tiles)).flatten(1, 2))
