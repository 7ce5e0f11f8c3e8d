"""LLaVA, VipLLaVA and Video-LLaVA: CLIP tower with a CLS token, LLaMA, a fixed number of tokens an image.

Video-LLaVA has a tower of its own for videos, whose frames keep their CLS token.
"""

from __future__ import annotations

import inspect

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from .base import IMAGE, TEXT, VIDEO, Family, Media, constant, pixels

SIDE, PATCH = 40, 8
TOKENS = (SIDE // PATCH) ** 2
VIDEO_SIDE, VIDEO_FRAMES = 24, 3
VIDEO_PATCHES = (VIDEO_SIDE // PATCH) ** 2
NAMES = inspect.signature(VideoLlavaForConditionalGeneration.get_image_features).parameters
VIDEO_LLAVA_PIXELS = "pixel_values" if "pixel_values" in NAMES else "pixel_values_images"  # the older name

PROMPTS = {
    "single": [[4, "image", 6]],
    "multi": [[4, "image", 3, "image", 6]],
    "batch": [[4, "image", 3, "image", 6], [2, "image", 7]],
    "text": [[11]],
}
VIDEO_PROMPTS = PROMPTS | {
    "video": [[4, "video", 6]],
    "mixed_batch": [[3, "image", 2, "video", 2, "image", 6], [2, "video", 3, "image", 7]],
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


def make_video_llava():
    return VideoLlavaForConditionalGeneration(
        VideoLlavaConfig(
            vision_config=clip(image_size=VIDEO_SIDE),
            text_config=LlamaConfig(**TEXT),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
        )
    )


def media(name: str, seed: str) -> Media:
    return Media("image", [IMAGE] * TOKENS, {"pixel_values": pixels(3, SIDE, SIDE, seed=seed)})


def collate(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.stack([m.payload["pixel_values"] for row in rows for m in row])}


def video_media(name: str, seed: str) -> Media:
    if name == "video":
        values = pixels(VIDEO_FRAMES, 3, VIDEO_SIDE, VIDEO_SIDE, seed=seed)
        return Media("video", [VIDEO] * (VIDEO_FRAMES * (1 + VIDEO_PATCHES)), {"pixel_values_videos": values})
    values = pixels(3, VIDEO_SIDE, VIDEO_SIDE, seed=seed)
    return Media("image", [IMAGE] * VIDEO_PATCHES, {VIDEO_LLAVA_PIXELS: values})


def collate_video(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    payloads = [m.payload for row in rows for m in row]
    out = {}
    for name in (VIDEO_LLAVA_PIXELS, "pixel_values_videos"):
        values = [p[name] for p in payloads if name in p]
        if values:
            out[name] = torch.stack(values)
    return out


def video_lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    return {
        "image": [VIDEO_PATCHES] * len(inputs.get(VIDEO_LLAVA_PIXELS, ())),
        "video": [VIDEO_FRAMES * (1 + VIDEO_PATCHES)] * len(inputs.get("pixel_values_videos", ())),
    }


FAMILIES = [
    Family("llava", make_llava, media, collate, constant(TOKENS), PROMPTS),
    Family("vipllava", make_vipllava, media, collate, constant(TOKENS), PROMPTS),
    Family(
        "video_llava",
        make_video_llava,
        video_media,
        collate_video,
        video_lengths,
        VIDEO_PROMPTS,
        video_token_id=VIDEO,
    ),
]
