"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and GLM-4.1V: dynamic resolution, a 2 x 2 merger, M-RoPE, video.

Media names are grids of merged cells, "HxW" or "TxHxW"; `image_grid_thw` counts patches, twice that each way.
"""

from __future__ import annotations

import functools

import torch
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from .base import (
    IMAGE,
    TEXT,
    VIDEO,
    VIDEO_END,
    VIDEO_START,
    VISION_END,
    VISION_START,
    Family,
    Media,
    pixels,
    text_ids,
)

PATCH, MERGE, FRAMES = 4, 2, 2  # FRAMES: frames in one temporal patch
PATCH_VALUES = 3 * FRAMES * PATCH**2

IMAGE_PROMPTS = {
    "single": [[4, "4x5", 6]],
    "multi": [[4, "3x4", 3, "5x3", 6]],
    "batch": [[4, "3x4", 3, "4x5", 6], [2, "6x3", 7]],
    "video": [[4, "3x3x4", 6]],
    "video_batch": [[4, "3x3x4", 6], [2, "2x2x3", 2, "2x3x3", 9]],
    "text": [[11]],
}
MIXED = {
    "mixed": [[3, "3x4", 2, "3x3x3", 6]],
    "mixed_batch": [[3, "3x4", 2, "2x3x3", 6], [2, "3x2x3", 2, "4x4", 7]],
}
IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO}
QWEN_IDS = IDS | {"vision_start_token_id": VISION_START, "vision_end_token_id": VISION_END}
VISION = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": PATCH,
    "spatial_merge_size": MERGE,
    "temporal_patch_size": FRAMES,
    "out_hidden_size": TEXT["hidden_size"],
}


def mrope(*section: int, **more) -> dict:
    """RoPE settings; time, height and width share out half the rotated dimensions."""
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(section), **more}


def make_qwen2():
    vision = {"depth": 3, "embed_dim": 32, "hidden_size": TEXT["hidden_size"], "mlp_ratio": 2, "num_heads": 2}
    vision |= {"patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": FRAMES}
    text = TEXT | {"rope_parameters": mrope(2, 3, 3)}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(vision_config=vision, text_config=text, **QWEN_IDS))


def make_qwen25():
    # Windows of 16 pixels are 2 x 2 merged cells, so the last windows of odd grids are cut.
    vision = VISION | {"depth": 4, "window_size": 16, "fullatt_block_indexes": [1, 3], "tokens_per_second": 4}
    text = TEXT | {"rope_parameters": mrope(2, 3, 3)}
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=text, **QWEN_IDS)
    return Qwen2_5_VLForConditionalGeneration(config)


def make_qwen3():
    # Three DeepStack levels go into the outputs of the first three of the four decoder layers.
    vision = VISION | {"depth": 4, "deepstack_visual_indexes": [0, 1, 2], "num_position_embeddings": 36}
    text = TEXT | {"head_dim": 16, "rope_parameters": mrope(2, 3, 3, mrope_interleaved=True)}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(vision_config=vision, text_config=text, **QWEN_IDS))


def make_glm4v():
    vision = VISION | {"image_size": 6 * PATCH}
    text = TEXT | {"rope_parameters": mrope(2, 2, 4)}
    ids = IDS | {"image_start_token_id": VISION_START, "image_end_token_id": VISION_END}
    ids |= {"video_start_token_id": VIDEO_START, "video_end_token_id": VIDEO_END}
    return Glm4vForConditionalGeneration(Glm4vConfig(vision_config=vision, text_config=text, **ids))


def media(name: str, seed: str, *, frames: str) -> Media:
    """`frames`: how a video is laid out: "whole", or "qwen3" / "glm" with every frame set apart by text."""
    *t, h, w = map(int, name.split("x"))
    grid = torch.tensor([*(t or [1]), h * MERGE, w * MERGE])
    values = pixels(int(grid.prod()), PATCH_VALUES, seed=seed)
    cells = h * w
    if not t:
        ids = [VISION_START, *[IMAGE] * cells, VISION_END]
        return Media("image", ids, {"pixel_values": values, "image_grid_thw": grid})
    if frames == "whole":
        ids = [VISION_START, *[VIDEO] * (cells * t[0]), VISION_END]
    elif frames == "qwen3":  # <0.5 seconds><|vision_start|>...<|vision_end|> for each frame
        stamps = [text_ids(3, seed, "time", f) for f in range(t[0])]
        ids = [i for stamp in stamps for i in (*stamp, VISION_START, *[VIDEO] * cells, VISION_END)]
    else:  # GLM: image ids between image marks, then the second; all of it between video marks
        stamps = [text_ids(1, seed, "time", f) for f in range(t[0])]
        ids = [i for stamp in stamps for i in (VISION_START, *[IMAGE] * cells, VISION_END, *stamp)]
        ids = [VIDEO_START, *ids, VIDEO_END]
    return Media("video", ids, {"pixel_values_videos": values, "video_grid_thw": grid})


def collate(rows: list[list[Media]], *, seconds: bool = False) -> dict[str, torch.Tensor]:
    payloads = [m.payload for row in rows for m in row]
    out = {}
    for values, grid in (("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")):
        chosen = [payload for payload in payloads if grid in payload]
        if chosen:
            out[values] = torch.cat([payload[values] for payload in chosen])
            out[grid] = torch.stack([payload[grid] for payload in chosen])
        if values == "pixel_values_videos" and chosen and seconds:
            # Not 1 for all: the temporal position ids must depend on it.
            out["second_per_grid_ts"] = torch.tensor([0.25 * float(payload[grid][0]) for payload in chosen])
    return out


def lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    def cells(name):
        return (inputs[name].prod(-1) // MERGE**2).tolist() if name in inputs else []

    return {"image": cells("image_grid_thw"), "video": cells("video_grid_thw")}


def family(name, make, frames, prompts, seconds=False):
    return Family(
        name,
        make,
        functools.partial(media, frames=frames),
        functools.partial(collate, seconds=seconds),
        lengths,
        prompts,
        types="mm_token_type_ids",
        video_token_id=VIDEO,
    )


FAMILIES = [
    family("qwen2_vl", make_qwen2, "whole", IMAGE_PROMPTS | MIXED),
    family("qwen2_5_vl", make_qwen25, "whole", IMAGE_PROMPTS | MIXED, seconds=True),
    family("qwen3_vl", make_qwen3, "qwen3", IMAGE_PROMPTS | MIXED),
    # No mix of images and videos: the model counts all image ids, of either, against each payload.
    family("glm4v", make_glm4v, "glm", IMAGE_PROMPTS),
]
