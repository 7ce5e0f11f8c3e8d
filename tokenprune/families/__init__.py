"""What differs between model classes: one small file a family; most models need none.

To add one: a file in this folder with a `Family` subclass under `@family`, and its tiny model in the tests.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from ..errors import UnsupportedModelError
from .base import Family

_FAMILIES: dict[str, type[Family]] = {}

REFUSED = {
    "mllama": "its images are read through cross-attention and have no place in the token sequence",
    "florence2": "it is an encoder-decoder; the images go to the encoder",
    "blip-2": "a Q-former already condenses each image into 32 queries, so there is little to prune",
    "instructblip": "a Q-former already condenses each image into 32 queries, so there is little to prune",
    "instructblipvideo": "a Q-former already condenses each image into 32 queries, so there is little to prune",
}

SUPPORTED = (
    "aya_vision",
    "cohere2_vision",
    "deepseek_ocr2",
    "deepseek_vl",
    "deepseek_vl_hybrid",
    "fast_vlm",
    "gemma3",
    "gemma4",
    "glm46v",
    "glm4v",
    "glm_ocr",
    "got_ocr2",
    "granite_docling",
    "idefics2",
    "idefics3",
    "internvl",
    "kimi_k25",
    "lfm2_vl",
    "llama4",
    "llava",
    "llava_next",
    "llava_next_video",
    "llava_onevision",
    "minicpmv4_6",
    "mistral3",
    "molmo2",
    "ovis2",
    "paddleocr_vl",
    "paligemma",
    "perception_lm",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_vl",
    "qwen3_vl_moe",
    "smolvlm",
    "video_llama_3",
    "video_llava",
    "vipllava",
)
"""Families under the full set of behaviour tests; other models work where they fit the mechanism."""


def family(cls: type[Family]) -> type[Family]:
    """Class decorator: use this family for its `model_types`."""
    _FAMILIES.update(dict.fromkeys(cls.model_types, cls))
    return cls


def family_of(config: Any) -> Family:
    """The family of a model's config; the default one where no file says otherwise."""
    for module in pkgutil.iter_modules(__path__):
        if module.name not in ("base", "labels", "shapes", "tiles"):
            importlib.import_module(f"{__name__}.{module.name}")
    return _FAMILIES.get(getattr(config, "model_type", ""), Family)()


def refused(config: Any, name: str | None = None) -> UnsupportedModelError | None:
    """The error for a model class that is known not to fit, told from its config alone; None for all others."""
    kind = getattr(config, "model_type", None)
    if kind not in REFUSED:
        return None
    return refusal(name or (getattr(config, "architectures", None) or [kind])[0], REFUSED[kind])


def refusal(name: str, why: str) -> UnsupportedModelError:
    """The error for a model class, with what works instead."""
    return UnsupportedModelError(
        f"{name} cannot be patched: {why}. Families under test: {', '.join(SUPPORTED)}; other "
        "transformers models work when their images sit in the token sequence of a stack of decoder layers."
    )


__all__ = ["REFUSED", "SUPPORTED", "Family", "family", "family_of", "refusal", "refused"]
