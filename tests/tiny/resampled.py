"""Idefics2 and DeepSeek-OCR 2: images as queries that have read them.

Media names: "plain", or "split", together ONE image: in Idefics2 four crops and the whole picture (60 tokens), in
DeepSeek-OCR 2 two crops, the whole picture and a separator (49).
"""

from __future__ import annotations

from itertools import groupby

import torch
import transformers
from torch import nn
from transformers import MistralConfig

from .base import FAKE_IMAGE, IMAGE, TEXT, Family, Media, pixels
from .tiled import SIDE, VISION, collate_idefics

LATENTS, SPLIT = 12, 5
QUERIES, CROPS = 16, 2
SAM_SIDE = 64

PROMPTS = {
    "single": [[4, "plain", 6]],
    "multi": [[4, "plain", 3, "plain", 6]],
    "batch": [[4, "plain", 3, "split", 6], [2, "plain", 7]],
    "text": [[11]],
}


def make_idefics2():
    perceiver = {"hidden_size": TEXT["hidden_size"], "resampler_n_latents": LATENTS, "resampler_depth": 1}
    perceiver |= {"resampler_n_heads": 2, "resampler_head_dim": 16, "num_key_value_heads": 1}
    return transformers.Idefics2ForConditionalGeneration(
        transformers.Idefics2Config(
            vision_config=VISION | {"image_size": SIDE},
            perceiver_config=perceiver,
            text_config=MistralConfig(**TEXT, head_dim=16, sliding_window=None),
            image_token_id=IMAGE,
        )
    )


def make_deepseek_ocr2():
    sam = {
        "hidden_size": 32,
        "output_channels": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_dim": 32,
    }
    sam |= {"image_size": SAM_SIDE, "patch_size": 4, "window_size": 8, "global_attn_indexes": [1]}
    encoder = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = TEXT | {
        "n_routed_experts": 2,
        "num_experts_per_tok": 1,
        "n_shared_experts": 1,
        "moe_intermediate_size": 32,
    }
    model = transformers.DeepseekOcr2ForConditionalGeneration(
        transformers.DeepseekOcr2Config(
            vision_config={
                "sam_config": sam | {"downsample_channels": [8, 32]},
                "encoder_config": encoder | {"num_key_value_heads": 2, "vocab_size": 8},
            },
            text_config=text | {"mlp_layer_types": ["dense", "dense", "sparse", "dense"]},
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )
    )
    model.model.vision_tower.query_768_resolution = nn.Embedding(
        QUERIES, 32
    )  # 144 whatever the configuration says
    return model


def ocr_media(name: str, seed: str) -> Media:
    crops = CROPS if name == "split" else 0
    payload = {"whole": pixels(3, SAM_SIDE, SAM_SIDE, seed=seed)}
    payload["crops"] = pixels(crops, 3, SAM_SIDE, SAM_SIDE, seed=f"crops {seed}")
    return Media("image", [IMAGE] * (QUERIES * (crops + 1) + 1), payload)


def ocr_collate(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    payloads = [m.payload for row in rows for m in row]
    out = {"pixel_values": torch.stack([p["whole"] for p in payloads])}
    crops = torch.cat([p["crops"] for p in payloads])
    if len(crops):
        out["pixel_values_local"] = crops
        out["num_local_patches"] = torch.tensor([len(p["crops"]) for p in payloads])
    return out


def ocr_lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    crops = inputs.get(
        "num_local_patches", torch.zeros(len(inputs.get("pixel_values", ())), dtype=torch.long)
    )
    return {"image": [QUERIES * (int(c) + 1) + 1 for c in crops], "video": []}


def media(name: str, seed: str) -> Media:
    pictures = SPLIT if name == "split" else 1
    ids = [FAKE_IMAGE, *[*[IMAGE] * LATENTS, FAKE_IMAGE] * pictures]
    return Media("image", ids, {"pixel_values": pixels(pictures, 3, SIDE, SIDE, seed=seed)})


def lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    counts = []
    for row in inputs["input_ids"].tolist():
        for marked, chain in groupby(row, lambda i: i in (IMAGE, FAKE_IMAGE)):
            pictures = list(chain).count(IMAGE) // LATENTS if marked else 0
            counts += [SPLIT * LATENTS] * (pictures // SPLIT) + [LATENTS] * (pictures % SPLIT)
    return {"image": counts, "video": []}


FAMILIES = [
    Family("idefics2", make_idefics2, media, collate_idefics, lengths, PROMPTS, tower_fields=()),
    Family(
        "deepseek_ocr2", make_deepseek_ocr2, ocr_media, ocr_collate, ocr_lengths, PROMPTS, tower_fields=()
    ),
]
