"""MiniCPM-V 4.6: Qwen3.5's text model with 1-D positions, pictures packed side by side, slices and frames apart.

Media names are grids of visual tokens, 4 x 4 patches each: "HxW" an image, "HxW:frame" one frame of a video.
"""

from __future__ import annotations

import inspect

import torch
import transformers as hf

from .base import IMAGE, VIDEO, VISION_END, VISION_START, Family, Media, pixels
from .hybrids import qwen35_text, slow_decay

PATCH, MERGE = 4, 4

PROMPTS = {
    "single": [[4, "4x5", 6]],
    "multi": [[4, "3x4", 3, "5x3", 6]],
    "batch": [[4, "3x4", 3, "4x5", 6], [2, "6x3", 7]],
    "video": [[4, "3x4:frame", 1, "3x4:frame", 6]],
    "mixed_batch": [[3, "3x4", 2, "2x3:frame", 6], [2, "3x3:frame", 3, "4x3", 7]],
    "text": [[11]],
}


def make():
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision |= {"patch_size": PATCH, "image_size": 6 * PATCH * MERGE}
    config = hf.MiniCPMV4_6Config(
        vision_config=vision,
        text_config=hf.Qwen3_5TextConfig(**qwen35_text()),
        insert_layer_id=0,
        image_size=6 * PATCH * MERGE,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
    )
    return slow_decay(hf.MiniCPMV4_6ForConditionalGeneration(config))


def media(name: str, seed: str) -> Media:
    """Of "HxW" and "HxW:frame"."""
    size, _, frame = name.partition(":")
    h, w = map(int, size.split("x"))
    grid = torch.tensor([h * MERGE, w * MERGE])
    values = pixels(3, PATCH, int(grid.prod()) * PATCH, seed=seed)
    ids = [VISION_START, *[VIDEO if frame else IMAGE] * (h * w), VISION_END]
    return Media("video" if frame else "image", ids, {"values": values, "sizes": grid})


def collate(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    out = {}
    for kind, end in (("image", ""), ("video", "_videos")):
        chosen = [m.payload for row in rows for m in row if m.kind == kind]
        if chosen:
            out[f"pixel_values{end}"] = torch.cat([p["values"] for p in chosen], -1)[None]
            out[f"target_sizes{end}"] = torch.stack([p["sizes"] for p in chosen])
    return out


def lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    def tokens(name):
        return (inputs[name].prod(-1) // MERGE**2).tolist() if name in inputs else []

    return {"image": tokens("target_sizes"), "video": tokens("target_sizes_videos")}


# transformers 5.17 reads pictures of one size only in a call, patched or not; its method takes no further arguments.
RAGGED = "kwargs" in inspect.signature(hf.MiniCPMV4_6Model.get_image_features).parameters

FAMILIES = [
    Family("minicpmv4_6", make, media, collate, lengths, PROMPTS, video_token_id=VIDEO, way="rows"),
][: int(RAGGED)]
