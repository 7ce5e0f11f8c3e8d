"""Kimi K2.5: a packed tower as in Qwen-VL, patches in raster order, merged 2 x 2 by the tower's own pooling."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from . import family
from .base import Call
from .qwen_vl import QwenVL
from .shapes import Shape, grid_shape


@family
class KimiK25(QwenVL):
    """Images only: transformers (5.23) averages over a clip's frames, splits the result by all of them, and raises."""

    model_types = ("kimi_k25",)
    projector_names = ("mm_projector",)
    modalities: ClassVar[tuple[str, ...]] = ("image",)
    merge_friendly = True

    def merge(self, composite: nn.Module) -> int:
        kernel: Any = composite.config.vision_config.merge_kernel_size
        return kernel[0]

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        m = self.merge(composite)
        return [grid_shape(1, h // m, w // m) for _, h, w in self.grids(modality, call).tolist()]

    def segments(self, composite: nn.Module, call: Call) -> list[int] | None:
        return [t * h * w for t, h, w in self.grids("image", call).tolist()]

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        if patches.dim() == 3:  # (cells, m m, C): the projector's input
            return list(patches.mean(1).split([s.n for s in shapes]))
        grids = self.grids(modality, call).tolist()
        pictures = patches.split([h * w for _, h, w in grids])
        square = [p.unflatten(0, (h, w)).permute(2, 0, 1) for p, (_, h, w) in zip(pictures, grids)]
        return [F.avg_pool2d(p, self.merge(composite)).flatten(1).T for p in square]
