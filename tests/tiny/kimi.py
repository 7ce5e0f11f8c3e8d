"""Kimi K2.5: latent attention with experts, images of any size, patches in raster order.

No videos: transformers splits what it averaged over a clip's frames by the number of its frames, and raises.
"""

from __future__ import annotations

import torch
import transformers as hf

from .base import IMAGE, TEXT, Family, Media, pixels
from .qwen import MERGE, PATCH, QWEN_IDS, collate, lengths

PROMPTS = {
    "single": [[4, "4x5", 6]],
    "multi": [[4, "3x4", 3, "5x3", 6]],
    "batch": [[4, "3x4", 3, "4x5", 6], [2, "6x3", 7]],
    "text": [[11]],
}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 24,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
}


def make():
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {
        "patch_size": PATCH,
        "pos_emb_height": 6,
        "pos_emb_width": 6,
        "merge_kernel_size": [MERGE, MERGE],
    }
    config = hf.Kimi_K25Config(
        vision_config=vision,
        text_config=hf.DeepseekV3Config(**TEXT | LATENT),
        projection_hidden_size=32,
        tie_word_embeddings=False,
        **QWEN_IDS,
    )
    return hf.Kimi_K25ForConditionalGeneration(config)


def media(name: str, seed: str) -> Media:
    h, w = map(int, name.split("x"))
    grid = torch.tensor([1, h * MERGE, w * MERGE])
    values = pixels(int(grid.prod()), 3, PATCH, PATCH, seed=seed)
    return Media("image", [IMAGE] * (h * w), {"pixel_values": values, "image_grid_thw": grid})


FAMILIES = [Family("kimi_k25", make, media, collate, lengths, PROMPTS)]
