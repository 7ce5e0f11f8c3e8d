"""Mistral Small 3.1 (Pixtral tower): pictures of any size packed into one sequence, merged 2 x 2."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from . import family
from .base import Call, Family
from .shapes import Shape, grid_shape


@family
class Mistral3(Family):
    """Sizes come as `image_sizes` in pixels."""

    model_types = ("mistral3",)

    def patch_grids(self, composite: nn.Module, call: Call) -> list[tuple[int, int]]:
        """(h, w) of each picture in patches."""
        sizes, patch = call["image_sizes"], composite.config.vision_config.patch_size
        rows = sizes.tolist() if isinstance(sizes, Tensor) else sizes
        return [(int(h) // patch, int(w) // patch) for h, w in rows]

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        m = composite.config.spatial_merge_size
        return [grid_shape(1, h // m, w // m) for h, w in self.patch_grids(composite, call)]

    def segments(self, composite: nn.Module, call: Call) -> list[int] | None:
        return [h * w for h, w in self.patch_grids(composite, call)]

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        m, grids = composite.config.spatial_merge_size, self.patch_grids(composite, call)
        flat = patches.reshape(-1, patches.shape[-1]).split([h * w for h, w in grids])
        pictures = [p.T.reshape(1, -1, h, w) for p, (h, w) in zip(flat, grids)]
        return [F.avg_pool2d(p, m).flatten(2)[0].T for p in pictures]
