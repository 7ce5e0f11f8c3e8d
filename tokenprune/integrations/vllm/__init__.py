"""Serving with vLLM: image and video tokens are cut between the vision tower and the language model.

    vllm serve MODEL --hf-overrides '{"architectures": ["TokenPruneLlavaForConditionalGeneration"],
                                      "tokenprune": {"method": "divprune", "keep": 0.25}}'

vLLM counts a prompt's tokens before any feature exists, caches features under the picture's hash and splits prompts
into chunks; so a method serves if its count follows from the grid alone and its choice from the features alone.
Nothing changes for a model that is served under its own name.
"""

from __future__ import annotations

ARCHITECTURES = {
    "TokenPruneQwen2_5_VLForConditionalGeneration": "qwen2_5_vl:Qwen2_5_VLForConditionalGeneration",
    "TokenPruneQwen3VLForConditionalGeneration": "qwen3_vl:Qwen3VLForConditionalGeneration",
    "TokenPruneLlavaForConditionalGeneration": "llava:LlavaForConditionalGeneration",
    "TokenPruneInternVLForConditionalGeneration": "internvl:InternS1ForConditionalGeneration",
}
"""Name to put into `hf_overrides["architectures"]` -> our file and class; each is vLLM's own class with a mixin."""


def register() -> None:
    """Entry point of the group `vllm.general_plugins`: name our architectures. Twice is once; loads no model code."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from .start import CheckAtStart

    for name, place in ARCHITECTURES.items():
        if name not in MODELS_CONFIG_MAP:
            MODELS_CONFIG_MAP[name] = CheckAtStart
            ModelRegistry.register_model(name, f"{__name__}.{place}")


__all__ = ["ARCHITECTURES", "register"]
