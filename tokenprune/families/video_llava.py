"""Video-LLaVA: a tower for images and one for videos, each frame led by the class token of its tower."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from . import family
from .base import Call, Family
from .shapes import Shape, grid_shape


@family
class VideoLlava(Family):
    """Images lose their class token, video frames keep it: a clip is T times (1 + h w) tokens.

    A class token shows no place, so it has a separator's coordinates, with its frame's t. It is a member of N; the
    tower's fields that say nothing of it hold the mean of its frame there.
    """

    model_types = ("video_llava",)
    tower_names = ("image_tower",)
    twin_names: ClassVar[tuple[str, ...]] = ("video_tower",)
    merge_friendly = True

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        """The features come frame by frame; the pixels say how many make a clip."""
        if modality == "image":
            return super().shapes(composite, modality, call, lengths)
        videos, frames = call["pixel_values_videos"].shape[:2]
        side = math.isqrt(lengths[0])
        return [grid_shape(frames, side, side, heads=lengths[0] - side * side)] * videos

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        if modality == "image":
            return super().spread(composite, modality, call, patches, shapes)
        frames = len(patches) // len(shapes)
        missing = shapes[0].n // frames - patches.shape[1]  # attention and keys come without the class token
        mean = patches.mean(1, keepdim=True).expand(-1, missing, -1)
        return list(torch.cat([mean, patches], 1).unflatten(0, (len(shapes), frames)).flatten(1, 2))
