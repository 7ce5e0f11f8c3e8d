"""LLaVA and VipLLaVA: CLIP tower with a CLS token, LLaMA, a fixed 5 x 5 tokens an image."""

from __future__ import annotations

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from .base import IMAGE, TEXT, Family, Media, constant, pixels

SIDE, PATCH = 40, 8
TOKENS = (SIDE // PATCH) ** 2

PROMPTS = {
    "single": [[4, "image", 6]],
    "multi": [[4, "image", 3, "image", 6]],
    "batch": [[4, "image", 3, "image", 6], [2, "image", 7]],
    "text": [[11]],
}


def clip(**overrides) -> CLIPVisionConfig:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": PATCH,
        "projection_dim": 32,
    }
    return CLIPVisionConfig(**(sizes | overrides))


def make_llava():
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=clip(),
            text_config=LlamaConfig(**TEXT),
            image_token_index=IMAGE,
            image_seq_length=TOKENS,
            vision_feature_layer=-2,
        )
    )


def make_vipllava():
    return VipLlavaForConditionalGeneration(
        VipLlavaConfig(
            vision_config=clip(num_hidden_layers=4),
            text_config=LlamaConfig(**TEXT),
            image_token_index=IMAGE,
            image_seq_length=TOKENS,
            vision_feature_layers=[-2, -3],  # VipLLaVA concatenates several tower layers
        )
    )


def media(name: str, seed: str) -> Media:
    return Media("image", [IMAGE] * TOKENS, {"pixel_values": pixels(3, SIDE, SIDE, seed=seed)})


def collate(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.stack([m.payload["pixel_values"] for row in rows for m in row])}


FAMILIES = [
    Family("llava", make_llava, media, collate, constant(TOKENS), PROMPTS),
    Family("vipllava", make_vipllava, media, collate, constant(TOKENS), PROMPTS),
]
