"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5: packed towers of any resolution with a 2 x 2 merger."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import family
from .base import Call, Family
from .shapes import Shape, grid_shape


@family
class QwenVL(Family):
    """Tokens follow `*_grid_thw`; patches come grouped by merged cell."""

    model_types = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
    projector_names = ("visual.merger",)

    def grids(self, modality: str, call: Call) -> Tensor:
        """(images, 3) of t, h, w in patches."""
        return call[f"{modality}_grid_thw"]

    def merge(self, composite: nn.Module) -> int:
        """Patches per side of one visual token."""
        return composite.config.vision_config.spatial_merge_size

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        m = self.merge(composite)
        return [grid_shape(t, h // m, w // m) for t, h, w in self.grids(modality, call).tolist()]

    def segments(self, composite: nn.Module, call: Call) -> list[int] | None:
        modality = "video" if "video_grid_thw" in call else "image"
        return [h * w for t, h, w in self.grids(modality, call).tolist() for _ in range(t)]

    def saliency_layer(self, composite: nn.Module, depth: int) -> int:
        full = getattr(composite.config.vision_config, "fullatt_block_indexes", None)
        return full[-1] if full else depth - 1  # a window block sees only its window

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        cell = self.merge(composite) ** 2
        tokens = patches.reshape(-1, patches.shape[-1]).unflatten(0, (-1, cell)).mean(1)
        order = self.token_order(composite, self.grids(modality, call))
        if order is not None:
            tokens = tokens[order.to(tokens.device)]
        return list(tokens.split([s.n for s in shapes]))

    def token_order(self, composite: nn.Module, grids: Tensor) -> Tensor | None:
        """Where the tower permuted its tokens into windows: the permutation that undoes it."""
        config = composite.config.vision_config
        if getattr(config, "fullatt_block_indexes", None) is None:
            return None
        tower = composite.visual
        if hasattr(tower, "get_window_index"):  # transformers < 5.18
            index, _ = tower.get_window_index(grids)
        else:
            from transformers.vision_utils import get_vision_window_index

            index, _ = get_vision_window_index(
                grids, config.spatial_merge_size, window_size=config.window_size, patch_size=config.patch_size
            )
        return torch.argsort(torch.as_tensor(index))
