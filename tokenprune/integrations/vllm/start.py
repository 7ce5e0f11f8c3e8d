"""What is looked at once, when a server starts: whether these settings can work on this engine at all."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.config import VerifyAndUpdateConfig

from ...errors import InputError, TokenPruneError
from .serving import served
from .settings import EXAMPLE, KEY, MODALITIES, Settings

GATE = 1e-9
"""A `video_pruning_rate` that opens vLLM's path for pruned M-RoPE models; its own pruning is never asked."""

AXES = 3
"""Rows of positions that vLLM makes for a prompt with pictures: time, height, width."""


def settings_of(hf_config: Any) -> Settings:
    """The settings that `hf_overrides` left on a model's config."""
    value = getattr(hf_config, KEY, None)
    if value is None:
        raise InputError(f"tokenprune: this architecture needs hf_overrides={{..., {KEY!r}: {EXAMPLE}}}")
    return Settings.read(value)


def check(vllm_config: Any) -> None:
    """Raise `TokenPruneError` with the reason where these settings or this engine's options cannot work."""
    model_config = vllm_config.model_config
    settings, mm_config = settings_of(model_config.hf_config), model_config.get_multimodal_config()
    for modality in MODALITIES:
        served(settings.of(modality))
    if getattr(model_config.hf_config, "vision_config", None) is None:
        raise TokenPruneError("tokenprune: this model's config has no vision tower")
    if mm_config.is_multimodal_pruning_enabled():
        raise TokenPruneError("tokenprune: leave out --video-pruning-rate, vLLM's own pruning of videos")
    if mm_config.enable_mm_embeds:
        raise TokenPruneError(
            "tokenprune: --enable-mm-embeds brings features whose grid is not told; leave it out"
        )
    if KEY in (mm_config.mm_processor_kwargs or {}):
        raise TokenPruneError(
            "tokenprune: a server's budget goes into --hf-overrides; --mm-processor-kwargs is a request's"
        )
    if model_config.uses_mrope and model_config.mrope_num_dims != AXES:
        raise TokenPruneError(
            f"tokenprune: this model's M-RoPE has {model_config.mrope_num_dims} sections, vLLM lays out {AXES}"
        )
    if vllm_config.speculative_config is not None:
        raise TokenPruneError(
            "tokenprune: speculative decoding reads ahead of the chunk whose positions are known"
        )
    lora = vllm_config.lora_config
    if lora is not None and lora.enable_tower_connector_lora:
        raise TokenPruneError(
            "tokenprune: LoRA on the vision tower counts its tokens from the prompt, where some are gone"
        )


class CheckAtStart(VerifyAndUpdateConfig):
    """vLLM's own hook for a model's config, in the process that starts the others."""

    @staticmethod
    def verify_and_update_config(vllm_config: Any) -> None:
        check(vllm_config)
        if vllm_config.model_config.uses_mrope:
            vllm_config.model_config.get_multimodal_config().video_pruning_rate = GATE
