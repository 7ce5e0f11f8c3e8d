"""Llama 4: chunked and full attention, queries scaled by position, experts in one layer; tiles as in Aya Vision."""

from __future__ import annotations

import functools

import torch
import transformers

from .base import GLOBAL_IMAGE, IMAGE, ROW_COL, TEXT, VISION_END, VISION_START, Family, Media, pixels
from .marked import PROMPTS, TILE
from .tiled import PATCH, SIDE, collate_internvl, marked_lengths

CHUNK = 20  # longer than one image, shorter than every prompt
FLOOR = 8  # tokens to the next temperature


def make():
    vision = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": SIDE, "patch_size": PATCH, "pixel_shuffle_ratio": 0.5}
    vision |= {"projector_input_dim": 32, "projector_output_dim": 32, "vision_output_dim": 32}
    text = TEXT | {"head_dim": 16, "intermediate_size_mlp": 96, "no_rope_layers": [1, 0, 1, 0]}
    text |= {"moe_layers": [2], "num_local_experts": 2, "attention_chunk_size": CHUNK}
    text |= {"floor_scale": FLOOR, "attn_scale": 0.5}
    return transformers.Llama4ForConditionalGeneration(
        transformers.Llama4Config(vision_config=vision, text_config=text, image_token_index=IMAGE)
    )


def media(name: str, seed: str) -> Media:
    tiles = 3 if name == "tiles" else 1
    crops = [*TILE, ROW_COL, *TILE, ROW_COL] if tiles > 1 else []  # one row of two; each row ends with a mark
    ids = [VISION_START, *crops, GLOBAL_IMAGE, *TILE, VISION_END]
    return Media("image", ids, {"pixel_values": pixels(tiles, 3, SIDE, SIDE, seed=seed)})


def without_temperature(model: torch.nn.Module) -> None:
    """The temperature counts padding as text."""
    for module in model.modules():
        if hasattr(module, "attn_temperature_tuning"):
            module.attn_temperature_tuning = False


FAMILIES = [
    Family(
        "llama4",
        make,
        media,
        collate_internvl,
        functools.partial(marked_lengths, opened=GLOBAL_IMAGE, closed=VISION_END),
        PROMPTS,
        fails={"beams": "features and image tokens do not match", "chunks": "pooler_output"},
        level=without_temperature,
    )
]
