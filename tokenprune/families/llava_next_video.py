"""LLaVA-NeXT-Video: images as in LLaVA-NeXT, video frames pooled to a quarter of their patches, no newlines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import family
from .anyres import AnyRes
from .base import Call, pool_to_grid
from .shapes import Shape, grid_shape


@family
class LlavaNextVideo(AnyRes):
    """A clip is `frames` grids of (side / stride)^2 tokens, one after the other without anything between them."""

    model_types = ("llava_next_video",)

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        if modality == "image":
            return super().shapes(composite, modality, call, lengths)
        pixels = call.get("pixel_values_videos", call.get("pixel_values"))  # the latter up to transformers 5.17
        frames = pixels.shape[1]
        side = self.side(composite) // composite.config.spatial_pool_stride
        return [grid_shape(frames, side, side) for _ in lengths]

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        if modality == "image":
            return super().spread(composite, modality, call, patches, shapes)
        frames = len(patches) // len(shapes)  # the projector sees them pooled already
        pooled = torch.stack([pool_to_grid(p, shapes[0].n // frames) for p in patches])
        return list(pooled.unflatten(0, (-1, frames)).flatten(1, 2))
