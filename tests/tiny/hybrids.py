"""Qwen3.5 and its mixture of experts, LFM2-VL: layers that carry a state (linear attention, convolution) in between.

Layers 1 and 3 of 4 are full attention, so that a cut at 2 has a layer of each kind before and behind it.
"""

from __future__ import annotations

import dataclasses

import torch
import transformers as hf
from torch.nn.functional import pad

from .base import GLOBAL_IMAGE, IMAGE, ROW_COL, TEXT, VISION_END, VISION_START, Family, Media, pixels
from .moe import PROMPTS as FEW
from .qwen import IMAGE_PROMPTS, MIXED, QWEN_IDS, VISION, family, mrope

PATCH, MERGE = 4, 2

LINEAR = {
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
LFM2_PROMPTS = {
    "single": [[4, "4x5", 6]],
    "multi": [[4, "3x4", 3, "5x3", 6]],
    "batch": [[4, "3x4", 3, "4x5", 6], [2, "6x3", 7]],
    "tiles_batch": [[4, "tiles", 3, "3x4", 6], [2, "tiles", 7]],
    "text": [[11]],
}
TILES = [(3, 3), (3, 3), (2, 3)]  # two tiles and a thumbnail


def qwen35_text() -> dict:
    # a quarter of a head's 32 dimensions is rotated: 4 frequencies
    rope = mrope(2, 1, 1, mrope_interleaved=True, partial_rotary_factor=0.25)
    return TEXT | LINEAR | {"head_dim": 32, "rope_parameters": rope}


def slow_decay(model):
    """As drawn, a state forgets within a token or two; a trained one remembers."""
    for name, weight in model.named_parameters():
        if name.endswith("A_log"):
            weight.data = torch.linspace(0.02, 0.2, len(weight)).log()
    return model


def make_qwen35():
    vision = VISION | {"num_position_embeddings": 36}
    config = hf.Qwen3_5Config(vision_config=vision, text_config=qwen35_text(), **QWEN_IDS)
    return slow_decay(hf.Qwen3_5ForConditionalGeneration(config))


def make_qwen35_moe():
    vision = VISION | {"num_position_embeddings": 36}
    text = qwen35_text() | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    text |= {"shared_expert_intermediate_size": 32}
    del text["intermediate_size"]
    config = hf.Qwen3_5MoeConfig(vision_config=vision, text_config=text, **QWEN_IDS)
    return slow_decay(hf.Qwen3_5MoeForConditionalGeneration(config))


def make_lfm2():
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"patch_size": PATCH, "num_patches": 36, "vision_use_head": False}
    text = TEXT | {"layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False}
    return hf.Lfm2VlForConditionalGeneration(
        hf.Lfm2VlConfig(
            vision_config=hf.Siglip2VisionConfig(**vision),
            text_config=hf.Lfm2Config(**text),
            image_token_id=IMAGE,
            projector_hidden_size=48,
            downsample_factor=MERGE,
            tie_word_embeddings=False,
        )
    )


def lfm2_media(name: str, seed: str) -> Media:
    """Merged cells "HxW", or "tiles": two tiles and a thumbnail, each behind a mark."""
    sizes = TILES if name == "tiles" else [tuple(map(int, name.split("x")))]
    marks = [[ROW_COL], [ROW_COL], [GLOBAL_IMAGE]] if name == "tiles" else [[]]
    ids = [i for mark, (h, w) in zip(marks, sizes) for i in (*mark, *[IMAGE] * (h * w))]
    shapes = torch.tensor(sizes) * MERGE
    values = pixels(int(shapes.prod(1).sum()), 3 * PATCH**2, seed=seed)
    payload = {"pixel_values": values, "spatial_shapes": shapes}
    return Media("image", [VISION_START, *ids, VISION_END], payload)


def collate_lfm2(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    """(tiles, patches, 3 p p), filled up with patches of zeros, which the model leaves out again."""
    payloads = [m.payload for row in rows for m in row]
    shapes = torch.cat([p["spatial_shapes"] for p in payloads])
    counts = shapes.prod(1).tolist()
    values = torch.cat([p["pixel_values"] for p in payloads]).split(counts)
    real = [torch.ones(n, dtype=torch.long) for n in counts]
    most = max(counts) + 2
    return {
        "pixel_values": torch.stack([pad(v, (0, 0, 0, most - len(v))) for v in values]),
        "pixel_attention_mask": torch.stack([pad(v, (0, most - len(v))) for v in real]),
        "spatial_shapes": shapes,
    }


def lfm2_lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    """An image ends at its mark; all image ids since the last end are its own."""
    counts, count = [], 0
    for i in inputs["input_ids"].flatten().tolist():
        count += i == IMAGE
        if i == VISION_END:
            counts.append(count)
            count = 0
    return {"image": counts, "video": []}


FAMILIES = [
    dataclasses.replace(family("qwen3_5", make_qwen35, "qwen3", IMAGE_PROMPTS | MIXED), way="rows"),
    dataclasses.replace(family("qwen3_5_moe", make_qwen35_moe, "qwen3", FEW), way="rows"),
    Family("lfm2_vl", make_lfm2, lfm2_media, collate_lfm2, lfm2_lengths, LFM2_PROMPTS, way="rows"),
]
