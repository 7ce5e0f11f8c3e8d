"""The tiny families as vLLM's CPU attention accepts them: heads of 32, which is the narrowest it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compare.checkpoints import BUILDERS, HALF
from tests.tiny.base import rescale
from tests.tiny.models import FAMILIES

WIDER = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}


def build(name: str, seed: int = 0) -> Any:
    """The family's model with two heads of 32 where it had four of 16, and RoPE sections twice as long."""
    import torch

    model = FAMILIES[name].build(seed)
    text = model.config.text_config
    for key, value in WIDER.items():
        setattr(text, key, value)
    if "mrope_section" in (text.rope_parameters or {}):
        text.rope_parameters["mrope_section"] = [2 * size for size in text.rope_parameters["mrope_section"]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wider = type(model)(model.config)
    return rescale(wider, seed).eval()


def processor(name: str) -> Any:
    """The family's processor; Qwen3-VL's images are normalized like its videos, as in its published checkpoints.

    vLLM normalizes both on the device with the numbers of the images.
    """
    out = BUILDERS[name]()
    if name == "qwen3_vl":
        for key, values in HALF.items():
            setattr(out.image_processor, key, values)
    return out


def save(name: str, folder: Path, seed: int = 0) -> Path:
    """Model and processor, as a folder that both libraries open."""
    build(name, seed).save_pretrained(folder)
    processor(name).save_pretrained(folder)
    return folder
