"""LLaVA-NeXT and LLaVA-OneVision: a thumbnail, a stitched picture from crops with its padding cut off, newlines."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import family
from .base import Call, Family, fill_newlines
from .shapes import Shape, grid_shape, tiled_shape


@family
class AnyRes(Family):
    """The model's own `pack_image_features` says where tokens and newlines end up, so that no geometry is repeated."""

    model_types = ("llava_next",)
    merge_friendly = True

    def side(self, composite: nn.Module) -> int:
        """Patches per side of one crop."""
        return composite.config.vision_config.image_size // composite.config.vision_config.patch_size

    def crops(self, composite: nn.Module, call: Call) -> list[int]:
        """Tower pictures per image, thumbnail included."""
        from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

        config = composite.config
        return [
            image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size)
            for size in call["image_sizes"]
        ]

    def pack_arguments(self, composite: nn.Module, call: Call) -> dict[str, Any]:
        """What `pack_image_features` needs besides features, sizes and newline."""
        return {"vision_feature_select_strategy": composite.config.vision_feature_select_strategy}

    def pack(self, composite: nn.Module, call: Call, patches: Tensor) -> list[Tensor]:
        """(crops of all images, P, C) -> per image (n, C), newlines as NaN."""
        newline = torch.full((patches.shape[-1],), math.nan, device=patches.device, dtype=patches.dtype)
        packed = composite.pack_image_features(  # type: ignore[operator]
            list(patches.split(self.crops(composite, call))),
            call["image_sizes"],
            image_newline=newline,
            **self.pack_arguments(composite, call),
        )
        return list(packed[0])

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        side = self.side(composite)
        dummy = torch.zeros(sum(self.crops(composite, call)), side * side, 1)
        return [self.shape(side, packed[:, 0].isnan()) for packed in self.pack(composite, call, dummy)]

    def shape(self, side: int, newline: Tensor) -> Shape:
        """From the places of the newlines: h of them behind the thumbnail, w tokens apart."""
        rows, stitched = int(newline.sum()), len(newline) - side * side
        if stitched == rows:
            return grid_shape(1, side, side, newlines=rows)  # no crops
        return tiled_shape(side, side, rows, stitched // rows - 1)

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        return [fill_newlines(p, s) for p, s in zip(self.pack(composite, call, patches), shapes)]


@family
class LlavaOneVision(AnyRes):
    """Crops only where a row has one image; large pictures shrunk; video frames pooled, one newline at the end."""

    model_types = ("llava_onevision",)

    def crops(self, composite: nn.Module, call: Call) -> list[int]:
        counts = super().crops(composite, call)
        per_row = call.get("batch_num_images")
        if per_row is None:
            return counts
        single = [int(n) == 1 for n in per_row for _ in range(int(n))]
        return [c if alone else 1 for c, alone in zip(counts, single)]

    def pack_arguments(self, composite: nn.Module, call: Call) -> dict[str, Any]:
        ratio = call.get("vision_aspect_ratio") or composite.config.vision_aspect_ratio
        return {"vision_aspect_ratio": ratio}

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        if modality == "image":
            return super().shapes(composite, modality, call, lengths)
        videos = call.get("pixel_values_videos", call.get("pixel_values"))  # the older name until transformers 5.17
        frames, side = videos.shape[1], math.ceil(self.side(composite) / 2)
        return [grid_shape(frames, side, side, newlines=1) for _ in lengths]

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        if modality == "image":
            return super().spread(composite, modality, call, patches, shapes)
        pooled = composite.apply_pooling(patches)  # type: ignore[operator]
        videos = pooled.reshape(len(shapes), -1, pooled.shape[-1])
        return [fill_newlines(F.pad(v, (0, 0, 0, 1)), s) for v, s in zip(videos, shapes)]
