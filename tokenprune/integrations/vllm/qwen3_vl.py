"""Qwen3-VL: DeepStack levels behind each feature, and videos whose frames stand apart between timestamps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from vllm.model_executor.models import qwen3_vl as upstream
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import PromptUpdateDetails

from . import positions
from .model import MRopeChoosing
from .positions import Run
from .processor import ApartInPrompt, Pruning, counts_of, field_of
from .qwen2_5_vl import merged_grids
from .settings import Grid, per_frame


class Qwen3VLMultiModalProcessor(Pruning, ApartInPrompt, upstream.Qwen3VLMultiModalProcessor):
    """vLLM's processor with shorter runs of places; in a video each frame has its own."""

    apart = True

    def grids(self, modality: str, data: Mapping[str, Any]) -> list[Grid]:
        return merged_grids(data, modality, self.info.get_hf_config().vision_config.spatial_merge_size)

    def shorten(self, modality: str, details: Any, item: Any, quotas: Sequence[int]) -> PromptUpdateDetails:
        if modality == "image":
            return PromptUpdateDetails.from_seq(details.full[:1] * sum(quotas))
        config = (
            self.info.get_hf_config()
        )  # with its own pruning on, vLLM would put all places into the first frame
        return self.get_video_repl(
            tokens_per_frame=list(quotas),
            timestamps=item["timestamps"].data,
            tokenizer=self.info.get_tokenizer(),
            vision_start_token_id=config.vision_start_token_id,
            vision_end_token_id=config.vision_end_token_id,
            video_token_id=config.video_token_id,
            select_token_id=True,
        )


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLMultiModalProcessor,
    info=upstream.Qwen3VLProcessingInfo,
    dummy_inputs=upstream.Qwen3VLDummyInputsBuilder,
)
class Qwen3VLForConditionalGeneration(MRopeChoosing, upstream.Qwen3VLForConditionalGeneration):
    """vLLM's class; the name is its own, as parts of vLLM ask for it."""

    apart = True

    def local(self, modality: str, grid: Grid, factor: float) -> Tensor:
        t, h, w = grid  # time is told by the text between the frames
        return positions.local((1, h, w)).repeat(t, 1)

    def runs(self, input_tokens: list[int], mm_features: Sequence[Any]) -> list[Run]:
        return [run for item in mm_features for run in self._runs_of(input_tokens, item)]

    def _runs_of(self, tokens: list[int], item: Any) -> Iterator[Run]:
        t, h, w, kept = counts_of(item.data[field_of(item.modality)].data[None])[0]
        offset, length = item.mm_position.offset, item.mm_position.length
        if item.modality == "image":
            yield Run(offset, length, (t, h, w))
            return
        for quota in per_frame((t, h, w), kept):  # empty frames take their room too
            offset = tokens.index(self.config.vision_start_token_id, offset) + 1
            yield Run(offset, quota, (1, h, w))
            offset += quota
