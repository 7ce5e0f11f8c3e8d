"""FastVLM (a FastViT tower, which is mostly convolutions) and Perception LM (a PE tower), both of timm.

Perception LM's media names: "tiles", a thumbnail and two tiles, together ONE image (27 tokens), and "video", three
frames. A call's images all have the same number of tiles.
"""

from __future__ import annotations

import importlib.util

import torch
import transformers
from transformers import LlamaConfig, Qwen2Config

from .base import IMAGE, TEXT, VIDEO, Family, Media, constant, pixels
from .llava import PROMPTS, collate

FAST_SIDE, FAST_TOKENS = 96, 9  # the tower shrinks by 32
SIDE, PATCH, POOL = 24, 4, 2
TILE, TILES, FRAMES = (SIDE // PATCH // POOL) ** 2, 3, 3

PLM_PROMPTS = {
    "single": [[4, "tiles", 6]],
    "multi": [[4, "tiles", 3, "tiles", 6]],
    "batch": [[4, "tiles", 3, "tiles", 6], [2, "tiles", 7]],
    "video": [[4, "video", 6]],
    "mixed_batch": [[3, "tiles", 2, "video", 6], [2, "video", 3, "tiles", 7]],
    "text": [[11]],
}


def tower(architecture: str, hidden: int, **sizes) -> transformers.TimmWrapperConfig:
    """Without weights: `timm.create_model(architecture, pretrained=False, **sizes)`."""
    return transformers.TimmWrapperConfig(
        architecture=architecture, hidden_size=hidden, do_pooling=False, model_args=sizes
    )


def make_fast_vlm():
    sizes = {"layers": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 16), "mlp_ratios": (2, 2, 2, 2)}
    return transformers.FastVlmForConditionalGeneration(
        transformers.FastVlmConfig(
            vision_config=tower("fastvit_t8", 32, **sizes),
            text_config=Qwen2Config(**TEXT),
            image_token_index=IMAGE,
            image_seq_length=FAST_TOKENS,
        )
    )


def make_perception_lm():
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": (SIDE, SIDE), "patch_size": PATCH}
    sizes |= {"ref_feat_shape": (SIDE // PATCH, SIDE // PATCH), "global_pool": ""}
    return transformers.PerceptionLMForConditionalGeneration(
        transformers.PerceptionLMConfig(
            vision_config=tower("vit_pe_core_tiny_patch16_384", 32, **sizes),
            text_config=LlamaConfig(**TEXT),
            projector_pooling_ratio=POOL,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
        )
    )


def fast_media(name: str, seed: str) -> Media:
    return Media("image", [IMAGE] * FAST_TOKENS, {"pixel_values": pixels(3, FAST_SIDE, FAST_SIDE, seed=seed)})


def plm_media(name: str, seed: str) -> Media:
    values = pixels(FRAMES if name == "video" else TILES, 3, SIDE, SIDE, seed=seed)
    if name == "video":
        return Media("video", [VIDEO] * (FRAMES * TILE), {"pixel_values_videos": values})
    return Media("image", [IMAGE] * (TILES * TILE), {"pixel_values": values})


def plm_collate(rows: list[list[Media]]) -> dict[str, torch.Tensor]:
    out = {}
    for name in ("pixel_values", "pixel_values_videos"):
        values = [m.payload[name] for row in rows for m in row if name in m.payload]
        if values:
            out[name] = torch.stack(values)
    return out


def plm_lengths(inputs: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    return {
        "image": [TILES * TILE] * len(inputs.get("pixel_values", ())),
        "video": [FRAMES * TILE] * len(inputs.get("pixel_values_videos", ())),
    }


FAILS = {"chunks": "TimmWrapperModelOutput"}  # its output cannot be cut

FAMILIES = [
    Family(
        "fast_vlm",
        make_fast_vlm,
        fast_media,
        collate,
        constant(FAST_TOKENS),
        PROMPTS,
        tower_fields=("vision_features",),
        fails=FAILS,
    ),
    Family(
        "perception_lm",
        make_perception_lm,
        plm_media,
        plm_collate,
        plm_lengths,
        PLM_PROMPTS,
        video_token_id=VIDEO,
        tower_fields=("vision_features",),
        fails=FAILS,
    ),
] * (importlib.util.find_spec("timm") is not None)
