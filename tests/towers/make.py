"""Tiny random towers of every library, built from configs; weights large enough that attention has preferences."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
)

SIDE, PATCH, WIDTH, DEPTH, HEADS = 40, 8, 32, 3, 4
PATCHES = (SIDE // PATCH) ** 2
HF = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def timm_tower(**other) -> nn.Module:
    models = pytest.importorskip("timm.models.vision_transformer")
    return models.VisionTransformer(**(_TIMM | other))


def deit() -> nn.Module:
    return pytest.importorskip("timm.models.deit").VisionTransformerDistilled(**_TIMM)


def open_clip_tower(**other) -> nn.Module:
    module = pytest.importorskip("open_clip.transformer")
    sizes = {"layers": DEPTH, "heads": HEADS, "mlp_ratio": 1.5, "output_dim": 16}
    return module.VisionTransformer(SIDE, PATCH, WIDTH, **(sizes | other))


_TIMM = {
    "img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "mlp_ratio": 1.5,
    "num_classes": 7,
}  # fmt: skip

TOWERS = {
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**HF)),
    "clip-projection": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**HF, projection_dim=16)),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**HF)),
    "timm": lambda: timm_tower(qk_norm=True, init_values=0.7),
    "timm-registers-mean": lambda: timm_tower(reg_tokens=3, global_pool="avg"),
    "timm-attention-pool": lambda: timm_tower(class_token=False, global_pool="map"),
    "deit": deit,
    "open_clip": lambda: open_clip_tower(ls_init_value=0.8, output_tokens=True),
    "open_clip-own-attention": lambda: open_clip_tower(block_type="custom", qk_norm=True),
    "open_clip-mean": lambda: open_clip_tower(pool_type="avg", output_tokens=True),
    "open_clip-attention-pool": lambda: open_clip_tower(
        attentional_pool=True, attn_pooler_queries=5, output_dim=WIDTH
    ),
}
PREFIX = {"siglip": 0, "timm-registers-mean": 4, "timm-attention-pool": 0, "deit": 2}


def prefix(name: str) -> int:
    return PREFIX.get(name, 1)


@functools.cache
def tower(name: str) -> nn.Module:
    """In evaluation mode, the same weights every time; whoever changes it takes that back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = TOWERS[name]().eval()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.15 * torch.randn(p.shape))
    return model.requires_grad_(False)


def pictures(n: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def tensors(output) -> list[torch.Tensor]:
    """Whatever a tower answers, as a flat list."""
    values = output.values() if hasattr(output, "keys") else output if isinstance(output, tuple) else [output]
    return [t for v in values for t in (v if isinstance(v, tuple) else [v])]


def blocks(model: nn.Module) -> list[nn.Module]:
    """The one list of equal blocks."""
    lists = [m for m in model.modules() if isinstance(m, (nn.ModuleList, nn.Sequential)) and len(m) == DEPTH]
    return list(next(m for m in lists if len({type(b) for b in m}) == 1))
