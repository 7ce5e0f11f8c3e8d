"""Granite Docling: tiles with their row and column, features that are added behind the first layers.

Media names: "plain", one tile, or "tiles": two tiles and a thumbnail, together ONE image (48 tokens).
"""

from __future__ import annotations

from itertools import groupby

import torch
import transformers
from torch.nn.functional import pad

from .base import FAKE_IMAGE, GLOBAL_IMAGE, IMAGE, ROW_COL, TEXT, Family, Media, pixels
from .marked import PROMPTS, TILE
from .tiled import MERGE, NEWLINE, SIDE, TOKENS, VISION

SECOND = 15  # the mark of the first row's second column


def make():
    vision = VISION | {"image_size": SIDE, "num_hidden_layers": 3, "deepstack_visual_indexes": [0, 1]}
    vision |= {"scale_factor": MERGE, "out_hidden_size": TEXT["hidden_size"], "use_fine_route": True}
    text = TEXT | {"embedding_multiplier": 2.0, "logits_scaling": 2.0, "attention_multiplier": 0.25}
    return transformers.GraniteDoclingForConditionalGeneration(
        transformers.GraniteDoclingConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=IMAGE,
            tie_word_embeddings=False,
            pad_token_id=0,
        )
    )


def media(name: str, seed: str) -> Media:
    tiles = 3 if name == "tiles" else 1
    ids = [FAKE_IMAGE, ROW_COL, *TILE, NEWLINE]
    if tiles > 1:
        ids = [
            *ids[:-1],
            FAKE_IMAGE,
            SECOND,
            *TILE,
            NEWLINE,
            NEWLINE,
            FAKE_IMAGE,
            GLOBAL_IMAGE,
            *TILE,
            FAKE_IMAGE,
        ]
    return Media("image", ids, {"pixel_values": pixels(tiles, 3, SIDE, SIDE, seed=seed)})


def collate(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    """(B, tiles, 3, H, W), filled up with tiles of zeros that the mask names."""
    values = [torch.cat([m.payload["pixel_values"] for m in row]) for row in rows]
    most = max(map(len, values))
    return {
        "pixel_values": torch.stack([pad(v, (0, 0) * 3 + (0, most - len(v))) for v in values]),
        "pixel_attention_mask": torch.stack([torch.arange(most) < len(v) for v in values]),
    }


def lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    counts = []
    for row in inputs["input_ids"].tolist():
        before = None
        for is_image, run in groupby(row, lambda i: i == IMAGE):
            ids = list(run)
            if is_image and before == ROW_COL:
                counts.append(TOKENS)
            elif is_image:
                counts[-1] += TOKENS
            before = ids[-1]
    return {"image": counts, "video": []}


FAMILIES = [Family("granite_docling", make, media, collate, lengths, PROMPTS)]
