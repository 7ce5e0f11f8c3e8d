"""DeepSeek-VL (SigLIP, LLaMA) and its hybrid, whose images go through a SAM tower of high resolution as well."""

from __future__ import annotations

import torch
import transformers
from transformers import LlamaConfig

from .base import IMAGE, TEXT, Family, Media, constant, pixels
from .gemma import SIDE, siglip
from .llava import PROMPTS

PATCH, FINE_SIDE, FINE_PATCH = 8, 64, 4
TOKENS = (SIDE // PATCH) ** 2


def make():
    return transformers.DeepseekVLForConditionalGeneration(
        transformers.DeepseekVLConfig(
            vision_config=siglip(PATCH),
            text_config=LlamaConfig(**TEXT),
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )
    )


def make_hybrid():
    sam = {
        "hidden_size": 16,
        "output_channels": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_dim": 16,
    }
    sam |= {"image_size": FINE_SIDE, "patch_size": FINE_PATCH, "window_size": 8, "global_attn_indexes": [0]}
    return transformers.DeepseekVLHybridForConditionalGeneration(
        transformers.DeepseekVLHybridConfig(
            vision_config=siglip(PATCH),
            high_res_vision_config=transformers.SamVisionConfig(**sam),
            text_config=LlamaConfig(**TEXT),
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )
    )


def media(name: str, seed: str) -> Media:
    return Media("image", [IMAGE] * TOKENS, {"pixel_values": pixels(3, SIDE, SIDE, seed=seed)})


def hybrid_media(name: str, seed: str) -> Media:
    one = media(name, seed)
    one.payload["high_res_pixel_values"] = pixels(3, FINE_SIDE, FINE_SIDE, seed=f"fine {seed}")
    return one


def collate(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    payloads = [m.payload for row in rows for m in row]
    return {name: torch.stack([p[name] for p in payloads]) for name in payloads[0]}


FAMILIES = [
    Family("deepseek_vl", make, media, collate, constant(TOKENS), PROMPTS),
    Family("deepseek_vl_hybrid", make_hybrid, hybrid_media, collate, constant(TOKENS), PROMPTS),
]
