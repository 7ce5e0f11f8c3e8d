"""LLaVA 1.5: pictures of one size; positions are counted over the tokens that are left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from vllm.model_executor.models import llava as upstream
from vllm.multimodal import MULTIMODAL_REGISTRY

from ...errors import UnsupportedModelError
from ...families.shapes import Shape, flat_shape, grid_shape
from .model import CompactChoosing
from .processor import Pruning
from .settings import Grid


def grid_of(n: int) -> Grid:
    """A square of tokens, or a row where there is a class token among them."""
    side = math.isqrt(n)
    return (1, side, side) if side * side == n else (1, 1, n)


class LlavaMultiModalProcessor(Pruning, upstream.LlavaMultiModalProcessor):
    """vLLM's processor with shorter runs of places."""

    def grids(self, modality: str, data: Mapping[str, Any]) -> list[Grid]:
        if modality == "image" and data.get("pixel_values") is not None:
            return [grid_of(self.info.get_max_image_tokens())] * len(data["pixel_values"])
        return []


def _processor(info: Any, dummy_inputs: Any) -> LlavaMultiModalProcessor:
    if not isinstance(info, upstream.LlavaProcessingInfo):
        raise UnsupportedModelError(
            "tokenprune: LLaVA with a Pixtral tower has rows that end in text; not supported"
        )
    return LlavaMultiModalProcessor(info, dummy_inputs)


@MULTIMODAL_REGISTRY.register_processor(
    _processor,
    info=upstream._build_llava_or_pixtral_hf_info,
    dummy_inputs=upstream.LlavaDummyInputsBuilder,
)
class LlavaForConditionalGeneration(CompactChoosing, upstream.LlavaForConditionalGeneration):
    """vLLM's class; the name is its own, as parts of vLLM ask for it."""

    def shape_of(self, modality: str, grid: Grid, n: int) -> Shape:
        side = math.isqrt(n)
        return grid_shape(1, side, side, heads=1) if side * side == n - 1 else flat_shape(n)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Checkpoints of newer transformers call the tower's layers without the `vision_model` that vLLM looks for."""
        return super().load_weights((inner_tower(name), weight) for name, weight in weights)


def inner_tower(name: str) -> str:
    """A weight's name as vLLM 0.32 expects it."""
    before, tower, after = name.rpartition("vision_tower.")
    return name if not tower or after.startswith("vision_model.") else f"{before}{tower}vision_model.{after}"
