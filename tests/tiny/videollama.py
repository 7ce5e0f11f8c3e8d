"""VideoLLaMA 3: patches of any number as in Qwen-VL, a merge size for each image and video, a time before each frame.

Media names are grids of tokens: "HxW" an image, whose tokens are one patch each; "TxHxW" a video of 2 x 2 patches a
token; "TxHxW:thin" a video of which the processor keeps the first frame and every third token of the others.
"""

from __future__ import annotations

import torch
from transformers import (
    Qwen2Config,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3VisionConfig,
)

from .base import IMAGE, TEXT, VIDEO, Family, Media, pixels, text_ids

PATCH, VIDEO_MERGE = 4, 2

PROMPTS = {
    "single": [[4, "4x5", 6]],
    "multi": [[4, "3x4", 3, "5x3", 6]],
    "batch": [[4, "3x4", 3, "4x5", 6], [2, "6x3", 7]],
    "video": [[4, "3x3x4", 6]],
    "thin_batch": [[4, "3x3x4:thin", 6], [2, "2x2x3", 2, "2x3x3:thin", 9]],
    "mixed_batch": [[3, "3x4", 2, "2x3x3", 6], [2, "3x2x3:thin", 2, "4x4", 9]],
    "text": [[11]],
}


def make():
    vision = VideoLlama3VisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, patch_size=PATCH
    )
    config = VideoLlama3Config(
        vision_config=vision, text_config=Qwen2Config(**TEXT), image_token_id=IMAGE, video_token_id=VIDEO
    )
    return VideoLlama3ForConditionalGeneration(config)


def media(name: str, seed: str) -> Media:
    name, _, thin = name.partition(":")
    *t, h, w = map(int, name.split("x"))
    merge = VIDEO_MERGE if t else 1
    grid = torch.tensor([*(t or [1]), h * merge, w * merge])
    values = pixels(int(grid.prod()), 3 * PATCH**2, seed=seed)
    payload = {"values": values, "grid": grid, "merge": torch.tensor(merge)}
    if not t:
        return Media("image", [IMAGE] * (h * w), payload)
    mask = torch.ones(t[0], h * w, dtype=torch.bool)
    if thin:
        mask[1:] = torch.arange(h * w) % 3 == 1
    ids = []
    for f, count in enumerate(mask.sum(1).tolist()):  # "Time 0.5s:", and "," between frames
        ids += [*text_ids(4, seed, "time", f), *[VIDEO] * count]
    return Media("video", ids, payload | {"mask": mask.flatten()})


def collate(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    out = {}
    for kind, values in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        chosen = [m.payload for row in rows for m in row if m.kind == kind]
        if chosen:
            out[values] = torch.cat([p["values"] for p in chosen])
            out[f"{kind}_grid_thw"] = torch.stack([p["grid"] for p in chosen])
            out[f"{kind}_merge_sizes"] = torch.stack([p["merge"] for p in chosen])
        if chosen and kind == "video":
            out["video_compression_mask"] = torch.cat([p["mask"] for p in chosen])
    return out


def lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    counts = {}
    for kind in ("image", "video"):
        grids = inputs.get(f"{kind}_grid_thw", torch.zeros(0, 3, dtype=torch.long))
        merge = inputs.get(f"{kind}_merge_sizes", torch.ones(0, dtype=torch.long))
        counts[kind] = (grids.prod(-1) // merge**2).tolist()
    if counts["video"]:
        counts["video"] = [int(m.sum()) for m in inputs["video_compression_mask"].split(counts["video"])]
    return counts


FAMILIES = [Family("video_llama_3", make, media, collate, lengths, PROMPTS, video_token_id=VIDEO)]
