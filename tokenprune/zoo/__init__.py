"""Embedded vision-language models and the procedural suites they were trained on.

from tokenprune.zoo import load
model, processor = load("tiny-llava")      # stock Hugging Face classes, offline
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

_HOME = Path(__file__).parent

__all__ = ["info", "list_models", "load", "path"]


def list_models() -> list[str]:
    """Names of the embedded models."""
    return sorted(folder.parent.name.replace("_", "-") for folder in _HOME.glob("*/config.json"))


def path(name: str) -> Path:
    """The folder of an embedded model, as `from_pretrained` takes it."""
    if name not in list_models():
        raise KeyError(f"no embedded model {name!r}; there are: {', '.join(list_models())}")
    return _HOME / name.replace("-", "_")


def info(name: str) -> dict[str, Any]:
    """Version, recipe, date and measured accuracies of an embedded model."""
    return json.loads((path(name) / "tokenprune.json").read_text())


def load(name: str, **options: Any) -> tuple[PreTrainedModel, ProcessorMixin]:
    """An embedded model (or a folder of one) in float32 and evaluation mode, with its processor.

    `options` go to `AutoModelForImageTextToText.from_pretrained`, e.g. `dtype=torch.float16`.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = path(name) if name in list_models() else Path(name)
    if not (folder / "config.json").is_file():
        path(name)  # raises with the names there are
    options = {"dtype": torch.float32, "local_files_only": True, **options}
    model = AutoModelForImageTextToText.from_pretrained(folder, **options).eval()
    return model, AutoProcessor.from_pretrained(folder, local_files_only=True)
