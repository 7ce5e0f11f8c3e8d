"""InternVL in its Hugging Face form: tiles of one size, the last one a thumbnail; video frames between words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vllm.model_executor.models import interns1 as upstream
from vllm.multimodal import MULTIMODAL_REGISTRY

from ...families.shapes import Shape, grid_shape, joined_shape
from .model import CompactChoosing
from .processor import Pruning
from .settings import Grid


class InternVLMultiModalProcessor(Pruning, upstream.InternS1MultiModalProcessor):
    """vLLM's processor with shorter runs of places; in a video each frame has its own."""

    apart = True

    def grids(self, modality: str, data: Mapping[str, Any]) -> list[Grid]:
        side = math.isqrt(self.info.get_hf_processor().image_seq_length)
        tiles = data.get(f"{modality}_num_patches")
        return [] if tiles is None else [(int(count), side, side) for count in tiles]


@MULTIMODAL_REGISTRY.register_processor(
    InternVLMultiModalProcessor,
    info=upstream.InternS1ProcessingInfo,
    dummy_inputs=upstream.InternS1DummyInputsBuilder,
)
class InternS1ForConditionalGeneration(CompactChoosing, upstream.InternS1ForConditionalGeneration):
    """vLLM's class, which serves InternVL too; the name is its own, as parts of vLLM ask for it."""

    apart = True

    def shape_of(self, modality: str, grid: Grid, n: int) -> Shape:
        tiles, h, w = grid
        if modality == "image" and tiles > 1:
            return joined_shape((grid_shape(1, h, w),) * tiles)
        return super().shape_of(modality, grid, n)
