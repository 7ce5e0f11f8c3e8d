"""Gemma 4: pictures of any size, each filled up to the longest, pooled behind the tower; frames set apart by text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import family
from .base import Call, Family
from .shapes import Shape, grid_shape


@family
class Gemma4(Family):
    """Sizes come as the places of the patches, -1 where a picture is filled up.

    The last layers of the small models share the keys of earlier ones: cuts have to lie before those layers.
    """

    model_types = ("gemma4",)
    projector_names = ("embed_vision",)

    def sizes(self, call: Call) -> list[tuple[int, int]]:
        """(h, w) of each picture or frame in patches."""
        places = call["video_position_ids" if "video_position_ids" in call else "image_position_ids"]
        return [(int(y) + 1, int(x) + 1) for x, y in places.flatten(0, -3).amax(1).tolist()]

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        m = composite.config.vision_config.pooling_kernel_size
        grids = [(h // m, w // m) for h, w in self.sizes(call)]
        if modality == "image":
            return [grid_shape(1, h, w) for h, w in grids]
        out = []
        for length in lengths:  # frames of one video are of one size
            h, w = grids[0]
            out.append(grid_shape(length // (h * w), h, w))
            grids = grids[length // (h * w) :]
        return out

    def segments(self, composite: nn.Module, call: Call) -> list[int] | None:
        return [h * w for h, w in self.sizes(call)]

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        flat, counts = patches.reshape(-1, patches.shape[-1]), [s.n for s in shapes]
        if len(flat) == sum(counts):  # the projector reads what is pooled already
            return list(flat.split(counts))
        m, sizes = composite.config.vision_config.pooling_kernel_size, self.sizes(call)
        frames = zip(flat.split([h * w for h, w in sizes]), sizes)
        pooled = [F.avg_pool2d(p.T.reshape(1, -1, h, w), m).flatten(2)[0] for p, (h, w) in frames]
        return list(torch.cat(pooled, 1).T.split(counts))
