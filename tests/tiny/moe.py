"""Qwen3-VL with a mixture of experts in every decoder layer."""

from __future__ import annotations

import transformers as hf

from .base import TEXT
from .qwen import IMAGE_PROMPTS, MIXED, QWEN_IDS, VISION, family, mrope


def make():
    # DeepStack as in Qwen3-VL: three levels, into the outputs of the first three of the four decoder layers.
    vision = VISION | {"depth": 4, "deepstack_visual_indexes": [0, 1, 2], "num_position_embeddings": 36}
    text = TEXT | {"head_dim": 16, "rope_parameters": mrope(2, 3, 3, mrope_interleaved=True)}
    text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    return hf.Qwen3VLMoeForConditionalGeneration(
        hf.Qwen3VLMoeConfig(vision_config=vision, text_config=text, **QWEN_IDS)
    )


# What goes in is Qwen3-VL's, so fewer kinds of prompts will do.
PROMPTS = {k: p for k, p in (IMAGE_PROMPTS | MIXED).items() if k not in ("video_batch", "mixed")}
FAMILIES = [family("qwen3_vl_moe", make, "qwen3", PROMPTS)]
