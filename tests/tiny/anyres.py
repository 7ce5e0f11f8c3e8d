"""LLaVA-NeXT, LLaVA-NeXT-Video, LLaVA-OneVision: a base image, tiles cut to its aspect ratio, newlines behind rows.

Media names: "HxW" the image's size in pixels; "HxW:base" an image without tiles, as in a OneVision row with
several; "video" some frames. The token counts are worked out by hand, and the models refuse wrong ones.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad
from transformers import (
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

from .base import IMAGE, TEXT, VIDEO, Family, Media, pixels
from .llava import clip

SIDE, PATCH = 24, 8
BASE = (SIDE // PATCH) ** 2  # 9
PINPOINTS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE]]  # both are two tiles
TILES = 1 + 2
# 20x40 fits the wide pinpoint: 3 rows of 6 and a newline. 60x10 is narrower than the tall one, so of its 6 rows
# of 3 the outer two columns are padding and are cut: 6 rows of 1 and a newline.
TOKENS = {(20, 40): BASE + 3 * (6 + 1), (60, 10): BASE + 6 * (1 + 1)}
VIDEO_FRAMES = 5
VIDEO_TOKENS = VIDEO_FRAMES * 2 * 2 + 1  # 3 x 3 pooled to 2 x 2 a frame, one newline at the end

# LLaVA-NeXT-Video has 4 x 4 patches, as its pooling wants even sides. Both images fill 2 of the 4 rows or columns of
# their pinpoint: 2 rows of 8, and 8 rows of 2, with newlines.
NEXT_VIDEO_PATCH, NEXT_VIDEO_FRAMES = 6, 3
NEXT_VIDEO_TOKENS = {
    (10, 60): 16 + 2 * (8 + 1),
    (60, 10): 16 + 8 * (2 + 1),
    "video": NEXT_VIDEO_FRAMES * 2 * 2,
}

NEXT_PROMPTS = {
    "single": [[4, "20x40", 6]],
    "multi": [[4, "60x10", 3, "20x40", 6]],
    "batch": [[4, "60x10", 3, "20x40", 6], [2, "20x40", 7]],
    "text": [[11]],
}
ONEVISION_PROMPTS = {
    "single": [[4, "60x10", 6]],
    "multi": [[4, "60x10:base", 3, "20x40:base", 6]],
    "batch": [[4, "60x10:base", 3, "20x40:base", 6], [2, "20x40", 7]],
    "video": [[4, "video", 6]],
    "video_batch": [[4, "video", 6], [2, "video", 3, "video", 7]],
    "mixed": [[3, "20x40", 2, "video", 6]],
    "mixed_batch": [[3, "60x10:base", 2, "video", 2, "20x40:base", 6], [2, "video", 2, "20x40", 7]],
    "text": [[11]],
}

NEXT_VIDEO_PROMPTS = {
    "single": [[4, "60x10", 6]],
    "multi": [[4, "60x10", 3, "10x60", 6]],
    "batch": [[4, "60x10", 3, "10x60", 6], [2, "10x60", 7]],
    "video": [[4, "video", 6]],
    "mixed_batch": [[3, "60x10", 2, "video", 2, "10x60", 6], [2, "video", 3, "10x60", 7]],
    "text": [[11]],
}


def make_next_video():
    return LlavaNextVideoForConditionalGeneration(
        LlavaNextVideoConfig(
            # its images have 32 patches; another width, so that no test takes (patches, features) for a square
            vision_config=clip(image_size=SIDE, patch_size=NEXT_VIDEO_PATCH, hidden_size=24),
            text_config=LlamaConfig(**TEXT),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=PINPOINTS,
        )
    )


def make_next():
    return LlavaNextForConditionalGeneration(
        LlavaNextConfig(
            vision_config=clip(image_size=SIDE, patch_size=PATCH),
            text_config=LlamaConfig(**TEXT),
            image_token_index=IMAGE,
            image_grid_pinpoints=PINPOINTS,
            vision_feature_layer=-2,
            image_seq_length=BASE,
        )
    )


def make_onevision():
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    return LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=vision,
            text_config=Qwen2Config(**TEXT),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=PINPOINTS,
        )
    )


def media(name: str, seed: str) -> Media:
    if name == "video":
        values = pixels(VIDEO_FRAMES, 3, SIDE, SIDE, seed=seed)
        return Media("video", [VIDEO] * VIDEO_TOKENS, {"pixel_values_videos": values})
    size, _, base = name.partition(":")
    height, width = map(int, size.split("x"))
    tiles, count = (1, BASE + 1) if base else (TILES, TOKENS[height, width])
    values = pixels(tiles, 3, SIDE, SIDE, seed=seed)
    payload = {"pixel_values": values, "image_sizes": torch.tensor([height, width])}
    return Media("image", [IMAGE] * count, payload)


def media_next_video(name: str, seed: str) -> Media:
    if name == "video":
        values = pixels(NEXT_VIDEO_FRAMES, 3, SIDE, SIDE, seed=seed)
        return Media("video", [VIDEO] * NEXT_VIDEO_TOKENS[name], {"pixel_values_videos": values})
    size = tuple(map(int, name.split("x")))
    payload = {"pixel_values": pixels(TILES, 3, SIDE, SIDE, seed=seed), "image_sizes": torch.tensor(size)}
    return Media("image", [IMAGE] * NEXT_VIDEO_TOKENS[size], payload)


def collate(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    out = {}
    images = [m.payload for row in rows for m in row if m.kind == "image"]
    if images:
        values = [payload["pixel_values"] for payload in images]
        most = max(map(len, values))  # the processor fills up with tiles of zeros
        out["pixel_values"] = torch.stack([pad(v, (0, 0) * 3 + (0, most - len(v))) for v in values])
        out["image_sizes"] = torch.stack([payload["image_sizes"] for payload in images])
    videos = [m.payload["pixel_values_videos"] for row in rows for m in row if m.kind == "video"]
    if videos:
        out["pixel_values_videos"] = torch.stack(videos)
    return out


def collate_onevision(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    out = collate(rows)
    if "pixel_values" in out:
        out["batch_num_images"] = torch.tensor([sum(m.kind == "image" for m in row) for row in rows])
    return out


def lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    counts = []
    if "image_sizes" in inputs:
        sizes = inputs["image_sizes"].tolist()
        several = [
            n > 1
            for n in inputs.get("batch_num_images", torch.ones(len(sizes))).int().tolist()
            for _ in range(n)
        ]
        counts = [BASE + 1 if s else TOKENS[h, w] for (h, w), s in zip(sizes, several, strict=True)]
    return {"image": counts, "video": [VIDEO_TOKENS] * len(inputs.get("pixel_values_videos", ()))}


def lengths_next_video(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    sizes = inputs["image_sizes"].tolist() if "image_sizes" in inputs else []
    videos = len(inputs.get("pixel_values_videos", ()))
    return {
        "image": [NEXT_VIDEO_TOKENS[tuple(size)] for size in sizes],
        "video": [NEXT_VIDEO_TOKENS["video"]] * videos,
    }


FAMILIES = [
    Family("llava_next", make_next, media, collate, lengths, NEXT_PROMPTS),
    Family(
        "llava_next_video",
        make_next_video,
        media_next_video,
        collate,
        lengths_next_video,
        NEXT_VIDEO_PROMPTS,
        video_token_id=VIDEO,
    ),
    Family(
        "llava_onevision",
        make_onevision,
        media,
        collate_onevision,
        lengths,
        ONEVISION_PROMPTS,
        video_token_id=VIDEO,
        later="video",
    ),
]
