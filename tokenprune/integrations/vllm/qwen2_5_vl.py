"""Qwen2.5-VL: images and videos, each one run of places; M-RoPE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllm.model_executor.models import qwen2_5_vl as upstream
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import PromptUpdateDetails

from .model import MRopeChoosing
from .positions import Run
from .processor import ApartInPrompt, Pruning
from .settings import Grid


def merged_grids(data: Mapping[str, Any], modality: str, merge: int) -> list[Grid]:
    """Grids in tokens from the processor's grids in patches."""
    field = data.get(f"{modality}_grid_thw")
    return [] if field is None else [(t, h // merge, w // merge) for t, h, w in field.tolist()]


class Qwen2_5_VLMultiModalProcessor(Pruning, ApartInPrompt, upstream.Qwen2_5_VLMultiModalProcessor):
    """vLLM's processor with shorter runs of places."""

    def grids(self, modality: str, data: Mapping[str, Any]) -> list[Grid]:
        return merged_grids(data, modality, self.info.get_hf_config().vision_config.spatial_merge_size)

    def shorten(self, modality: str, details: Any, item: Any, quotas: Sequence[int]) -> PromptUpdateDetails:
        return PromptUpdateDetails.from_seq(details.full[:1] * sum(quotas))  # all of it are places


class Qwen2_5_VLDummyInputsBuilder(upstream.Qwen2_5_VLDummyInputsBuilder):
    """vLLM's inputs to warm up with, each in the model's own marks: without any, an image and a video touch."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        processor = self.info.get_hf_processor()
        tokens = {"image": processor.image_token, "video": processor.video_token}
        return "".join(
            f"<|vision_start|>{token}<|vision_end|>" * mm_counts.get(m, 0) for m, token in tokens.items()
        )


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2_5_VLMultiModalProcessor,
    info=upstream.Qwen2_5_VLProcessingInfo,
    dummy_inputs=Qwen2_5_VLDummyInputsBuilder,
)
class Qwen2_5_VLForConditionalGeneration(MRopeChoosing, upstream.Qwen2_5_VLForConditionalGeneration):
    """vLLM's class; the name is its own, as parts of vLLM ask for it."""

    def factors(self, modality: str, item_input: Any, count: int) -> list[float]:
        seconds = item_input.get("second_per_grid_ts") if modality == "video" else None
        if seconds is None:
            return [1.0 if modality == "image" else float(self.tokens_per_second)] * count
        return [float(s) * self.tokens_per_second for s in seconds.flatten().tolist()]

    @property
    def tokens_per_second(self) -> float:
        """Positions of one second of video."""
        return getattr(self.config.vision_config, "tokens_per_second", 1.0)

    def runs(self, input_tokens: list[int], mm_features: Sequence[Any]) -> list[Run]:
        items = sorted(mm_features, key=lambda item: item.mm_position.offset)
        return [
            Run(offset, item.mm_position.length, (t, h, w), factor)
            for item, (offset, t, h, w, factor) in zip(items, self.iter_mm_grid_thw(items))
        ]
