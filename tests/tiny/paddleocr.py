"""PaddleOCR-VL: images of any size; the tower's patches come row by row, and the projector merges 2 x 2 of them."""

from __future__ import annotations

import torch
import transformers as hf

from .base import TEXT, Family, Media, pixels
from .qwen import MERGE, PATCH, QWEN_IDS, collate, lengths, mrope
from .qwen import media as cells

PROMPTS = {
    "single": [[4, "4x5", 6]],
    "multi": [[4, "3x4", 3, "5x3", 6]],
    "batch": [[4, "3x4", 3, "4x5", 6], [2, "6x3", 7]],
    "text": [[11]],
}


def make():
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 6 * PATCH, "patch_size": PATCH, "spatial_merge_size": MERGE}
    text = TEXT | {"rope_parameters": mrope(2, 3, 3), "head_dim": 16}
    config = hf.PaddleOCRVLConfig(vision_config=vision, text_config=text, **QWEN_IDS)
    return hf.PaddleOCRVLForConditionalGeneration(config)


def media(name: str, seed: str) -> Media:
    """As Qwen's, with the pixels of each patch as a small picture."""
    image = cells(name, seed, frames="none")
    patches = len(image.payload["pixel_values"])
    values: torch.Tensor = pixels(patches, 3, PATCH, PATCH, seed=seed)
    return Media("image", image.ids, image.payload | {"pixel_values": values})


FAMILIES = [
    Family(
        "paddleocr_vl",
        make,
        media,
        collate,
        lengths,
        PROMPTS,
        types="mm_token_type_ids",
    ),
]
