"""Real models by their shapes: the configurations of published checkpoints, as their config.json has them.

Time and memory depend on shapes only, so these are measured with random weights and nothing is downloaded. `layers`
and `tower_layers` cut the depth where a whole model is too large; the width, the vocabulary and the picture stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, UnknownNameError, neighbours

VICUNA_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}  # fmt: skip
QWEN_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152000, "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}  # fmt: skip
CLIP_L = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14, "projection_dim": 768, "vocab_size": 32000,
}  # fmt: skip
SIGLIP_SO400M = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26,
    "num_attention_heads": 16, "image_size": 384, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
INTERNVIT_300M = {
    "model_type": "internvl_vision", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": [448, 448], "patch_size": [14, 14], "attention_bias": True,
}  # fmt: skip
QWEN25_VISION = {
    "model_type": "qwen2_5_vl_vision", "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
    "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
QWEN3_VISION = {
    "model_type": "qwen3_vl_vision", "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
    "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}  # fmt: skip


def _qwen25(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocabulary: int, tied: bool
) -> dict:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text = {
        "model_type": "qwen2_5_vl_text", "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary, "max_position_embeddings": 128000, "rms_norm_eps": 1e-6, "rope_parameters": rope,
        "tie_word_embeddings": tied,
    }  # fmt: skip
    vision = {**QWEN25_VISION, "out_hidden_size": hidden}
    return {"text_config": text, "vision_config": vision, "tie_word_embeddings": tied}


QWEN3_VL_8B = {
    "model_type": "qwen3_vl_text", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 262144, "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A checkpoint's shapes and the picture it is measured with."""

    name: str
    model_type: str
    config: dict[str, Any]
    picture: str  # how a picture becomes tokens: see `bench.pictures`
    side: int  # pixels of a square picture

    @property
    def layers(self) -> int:
        """Decoder layers of the checkpoint."""
        return self.config["text_config"]["num_hidden_layers"]


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture(
            "llava-1.5-7b", "llava",
            {"text_config": VICUNA_7B, "vision_config": CLIP_L, "image_token_index": 32000, "image_seq_length": 576},
            "whole", 336,
        ),
        Architecture(
            "llava-next-7b", "llava_next",
            {
                "text_config": VICUNA_7B, "vision_config": CLIP_L, "image_token_index": 32000,
                "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
            },
            "tiles with newlines", 672,
        ),
        Architecture(
            "llava-onevision-7b", "llava_onevision",
            {
                "text_config": QWEN_7B, "vision_config": SIGLIP_SO400M, "image_token_index": 151646,
                "video_token_index": 151647, "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
                "image_grid_pinpoints": [[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)],
            },
            "tiles with newlines", 768,
        ),
        Architecture(
            "qwen2.5-vl-3b", "qwen2_5_vl", _qwen25(2048, 11008, 36, 16, 2, 151936, True), "patches", 1008
        ),
        Architecture(
            "qwen2.5-vl-7b", "qwen2_5_vl", _qwen25(3584, 18944, 28, 28, 4, 152064, False), "patches", 1008
        ),
        Architecture(
            "qwen3-vl-8b", "qwen3_vl",
            {"text_config": QWEN3_VL_8B, "vision_config": {**QWEN3_VISION, "out_hidden_size": 4096}},
            "patches", 1024,
        ),
        Architecture(
            "internvl3-8b", "internvl",
            {
                "text_config": {**QWEN_7B, "vocab_size": 151674}, "vision_config": INTERNVIT_300M,
                "image_token_id": 151667, "tie_word_embeddings": False,
            },
            "tiles", 896,
        ),
    )
}  # fmt: skip


def architecture(name: str) -> Architecture:
    """An architecture by name."""
    if name not in ARCHITECTURES:
        raise UnknownNameError(f"no bench model named {name!r}; {neighbours(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


def cut(one: Architecture, layers: int | None = None, tower_layers: int | None = None) -> dict[str, Any]:
    """The configuration with so many decoder and tower layers; None leaves them all.

    Raises `InputError` where there are fewer.
    """
    text, vision = dict(one.config["text_config"]), dict(one.config["vision_config"])
    depth = "depth" if "depth" in vision else "num_hidden_layers"
    for config, key, wanted, what in (
        (text, "num_hidden_layers", layers, "layers"),
        (vision, depth, tower_layers, "tower layers"),
    ):
        if wanted is not None and not 1 <= wanted <= config[key]:
            raise InputError(
                f"{one.name} has {config[key]} {what}; 1 to {config[key]} can be measured, not {wanted}"
            )
        config[key] = wanted or config[key]
    for places in ("fullatt_block_indexes", "deepstack_visual_indexes"):
        if places in vision:  # one is always left, the last layer
            vision[places] = [i for i in vision[places] if i < vision[depth]] or [vision[depth] - 1]
    return {**one.config, "text_config": text, "vision_config": vision}


def build(
    one: Architecture,
    *,
    layers: int | None = None,
    tower_layers: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Any:
    """The unpatched model in evaluation mode, with random weights of its dtype.

    What is cut away is never made: no more memory is taken than the model that is left needs. On the device "meta"
    nothing is taken at all.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.initialization import no_init_weights

    config = AutoConfig.for_model(one.model_type, **cut(one, layers, tower_layers))
    with no_init_weights(), torch.device(device):
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    model.tie_weights()
    if torch.device(device).type != "meta":
        _draw(model, seed)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _draw(model: nn.Module, seed: int) -> None:
    """Normal weights, norms of one, biases of zero. Noise is repeated: to draw billions takes minutes."""
    noise = 0.02 * torch.randn(2**22 + 2**12 + 1, generator=torch.Generator().manual_seed(seed))
    kinds: dict[tuple[torch.dtype, torch.device], Tensor] = {}
    for name, weight in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if weight.dim() == 1 and leaf in ("weight", "bias", "lambda_1", "lambda_2"):
            weight.fill_({"weight": 1.0, "bias": 0.0}.get(leaf, 0.1))
            continue
        drawn = kinds.setdefault((weight.dtype, weight.device), noise.to(weight.device, weight.dtype))
        flat, step = weight.view(-1), drawn.numel()
        for start in range(0, flat.numel(), step):
            part = flat[start : start + step]
            part.copy_(drawn[: part.numel()])


def parameters(model: nn.Module) -> int:
    """Weights of a model, tied ones once."""
    return sum(math.prod(p.shape) for p in model.parameters())
