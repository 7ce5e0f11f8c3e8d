"""Gemma 3 (sliding and full layers, bidirectional inside an image), PaliGemma (prefix-LM, positions from 1)."""

from __future__ import annotations

import functools

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SiglipVisionConfig,
)

from .base import IMAGE, TEXT, VISION_END, VISION_START, Family, Media, constant, pixels
from .llava import PROMPTS, collate

SIDE = 32
GEMMA3_TOKENS = 16  # 8 x 8 patches pooled to 4 x 4
PALIGEMMA_TOKENS = 16  # 4 x 4 patches
WINDOW = 12  # less than an image: text after one image cannot see all of it in sliding layers
NEWLINES = 21  # stands for the "\n\n" token, which Gemma 3's processor puts around images

PALIGEMMA_PROMPTS = {  # images come first
    "single": [["image", 7]],
    "multi": [["image", 3, "image", 7]],
    "batch": [["image", 3, "image", 7], ["image", 9]],
    # no "text": the processor refuses it
}


def siglip(patch: int, **more) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=patch,
        vision_use_head=False,
        **more,
    )


def make_gemma3():
    text = TEXT | {
        "num_hidden_layers": 6,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
        "sliding_window": WINDOW,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
    }
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=Gemma3TextConfig(**text),
            vision_config=siglip(4),
            mm_tokens_per_image=GEMMA3_TOKENS,
            image_token_index=IMAGE,
            boi_token_index=VISION_START,
            eoi_token_index=VISION_END,
            eos_token_id=None,
        )
    )


def make_paligemma():
    return PaliGemmaForConditionalGeneration(
        PaliGemmaConfig(
            text_config=GemmaConfig(**TEXT, head_dim=16),
            vision_config=siglip(8),
            image_token_index=IMAGE,
            projection_dim=TEXT["hidden_size"],
            hidden_size=TEXT["hidden_size"],
        )
    )


def media(name: str, seed: str, *, ids: list[int]) -> Media:
    return Media("image", ids, {"pixel_values": pixels(3, SIDE, SIDE, seed=seed)})


FAMILIES = [
    Family(
        "gemma3",
        make_gemma3,
        functools.partial(
            media, ids=[NEWLINES, VISION_START, *[IMAGE] * GEMMA3_TOKENS, VISION_END, NEWLINES]
        ),
        collate,
        constant(GEMMA3_TOKENS),
        PROMPTS,
        types="token_type_ids",
    ),
    Family(
        "paligemma",
        make_paligemma,
        functools.partial(media, ids=[IMAGE] * PALIGEMMA_TOKENS),
        collate,
        constant(PALIGEMMA_TOKENS),
        PALIGEMMA_PROMPTS,
        types="token_type_ids",
        types_mark_media=False,
        bos_first=False,  # <bos> follows the images; here any text token does
    ),
]
