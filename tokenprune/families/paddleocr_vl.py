"""PaddleOCR-VL: a packed tower as in Qwen-VL, whose patches stay in raster order until the projector merges them."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from . import family
from .base import Call
from .qwen_vl import QwenVL
from .shapes import Shape


@family
class PaddleOcr(QwenVL):
    """Tokens follow `image_grid_thw`; there are no videos, though the config names a token for them."""

    model_types = ("paddleocr_vl",)
    projector_names = ("projector",)
    modalities: ClassVar[tuple[str, ...]] = ("image",)

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        m, grids = self.merge(composite), self.grids(modality, call).tolist()
        images = patches.reshape(-1, patches.shape[-1]).split([t * h * w for t, h, w in grids])
        return [
            p.reshape(t, h // m, m, w // m, m, -1).mean((2, 4)).flatten(0, 2)
            for p, (t, h, w) in zip(images, grids)
        ]
