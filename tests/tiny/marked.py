"""Aya Vision, Cohere2 Vision, Ovis 2 and GOT-OCR 2.0: images as tiles of one size, each with marks of its own.

Media names: "plain", or "tiles": two tiles and a thumbnail, together ONE image (48 tokens). The thumbnail is last,
in Ovis 2 first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import transformers
from transformers import Qwen2Config

from .base import (
    GLOBAL_IMAGE,
    IMAGE,
    IMAGE_BREAK,
    ROW_COL,
    TEXT,
    VISION_END,
    VISION_START,
    Family,
    Media,
    pixels,
)
from .gemma import WINDOW, siglip
from .tiled import MERGE, PATCH, SIDE, TOKENS, VISION, collate_internvl, marked_lengths

GRID, COLUMN, ROW = 15, 16, 17  # Ovis 2's indicators; Aya's tiles are numbered by ROW_COL and GRID
SAM_SIDE = 64  # 16 x 16 patches, shrunk to 4 x 4 by the projector
TILE = [IMAGE] * TOKENS

PROMPTS = {
    "single": [[4, "plain", 6]],
    "multi": [[4, "plain", 3, "plain", 6]],
    "batch": [[4, "plain", 3, "tiles", 6], [2, "plain", 7]],
    "text": [[11]],
}


def cohere():
    """Three sliding layers to one with full attention, which has no positions, as in the real ones."""
    layers = ["sliding_attention", "sliding_attention", "full_attention", "full_attention"]
    return transformers.Cohere2Config(
        **TEXT, layer_types=layers, sliding_window=WINDOW, logit_scale=1.0, tie_word_embeddings=False
    )


def make_cohere(model_class: str, config_class: str, **more):
    config = getattr(transformers, config_class)(
        vision_config=siglip(PATCH),
        text_config=cohere(),
        downsample_factor=MERGE,
        alignment_intermediate_size=64,
        tie_word_embeddings=False,
        **more,
    )
    return getattr(transformers, model_class)(config)


def make_ovis2():
    vision = VISION | {"image_size": SIDE, "hidden_stride": MERGE, "vocab_size": 37}
    return transformers.Ovis2ForConditionalGeneration(
        transformers.Ovis2Config(
            vision_config=vision,
            text_config=Qwen2Config(**TEXT),
            image_token_id=IMAGE,
            visual_indicator_token_ids=[VISION_START, GRID, COLUMN, ROW, VISION_END],
            vocab_size=TEXT["vocab_size"],
            hidden_size=TEXT["hidden_size"],
            tie_word_embeddings=False,
        )
    )


def make_got_ocr2():
    sizes = {"hidden_size": 32, "mlp_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"output_channels": 24, "image_size": SAM_SIDE, "patch_size": PATCH}
    return transformers.GotOcr2ForConditionalGeneration(
        transformers.GotOcr2Config(
            vision_config=sizes | {"window_size": 8, "global_attn_indexes": [1]},
            text_config=Qwen2Config(**TEXT),
            image_token_index=IMAGE,
            image_seq_length=TOKENS,
            tie_word_embeddings=False,
        )
    )


def aya_ids(tiles: int) -> list[int]:
    numbered = [[number, *TILE] for number in (ROW_COL, GRID)[: tiles - 1]]
    return [VISION_START, *sum(numbered, []), GLOBAL_IMAGE, *TILE, VISION_END]


def cohere_ids(tiles: int) -> list[int]:
    return [VISION_START, *[*TILE, IMAGE_BREAK] * tiles, VISION_END]


def ovis_ids(tiles: int) -> list[int]:
    crops = [*TILE, COLUMN, *TILE] if tiles > 1 else []  # one row of two
    return [VISION_START, *TILE, GRID, *crops, VISION_END]


def got_ids(tiles: int) -> list[int]:
    return [VISION_START, *TILE * tiles, VISION_END]


def media(name: str, seed: str, *, ids: Callable[[int], list[int]], side: int = SIDE) -> Media:
    tiles = 3 if name == "tiles" else 1
    return Media("image", ids(tiles), {"pixel_values": pixels(tiles, 3, side, side, seed=seed)})


def family(name: str, make: Callable, ids: Callable, opened: int = VISION_START, **more) -> Family:
    side = SAM_SIDE if name == "got_ocr2" else SIDE
    return Family(
        name,
        make,
        functools.partial(media, ids=ids, side=side),
        collate_internvl,
        functools.partial(marked_lengths, opened=opened, closed=VISION_END),
        PROMPTS,
        **more,
    )


AYA = functools.partial(
    make_cohere, "AyaVisionForConditionalGeneration", "AyaVisionConfig", image_token_index=IMAGE
)
COHERE2 = functools.partial(
    make_cohere, "Cohere2VisionForConditionalGeneration", "Cohere2VisionConfig", image_token_id=IMAGE
)

FAMILIES = [
    family("aya_vision", AYA, aya_ids, opened=GLOBAL_IMAGE),
    family("cohere2_vision", COHERE2, cohere_ids),
    family(
        "ovis2", make_ovis2, ovis_ids, fails={"chunks": "'NoneType' object is not subscriptable"}
    ),  # indicators
    family("got_ocr2", make_got_ocr2, got_ids, tower_fields=("vision_features",)),
]
