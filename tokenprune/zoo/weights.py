"""How the weights of both embedded models begin, and how they are written in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin


@torch.no_grad()
def start(module: nn.Module, depth: int, outputs: tuple[str, ...]) -> None:
    """Initial weights for something deep and thin: unit fan-in, no biases, and residual outputs small enough for the
    depth. `outputs` are the ends of their names."""
    for name, weight in module.named_parameters():
        if weight.ndim >= 2:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
        if name.endswith(outputs):
            weight.mul_((2 * depth) ** -0.5)


def start_language(model: Any) -> None:
    """Initial weights of a decoder, a stock text model."""
    start(model.layers, len(model.layers), ("o_proj.weight", "down_proj.weight"))
    nn.init.normal_(model.embed_tokens.weight, std=0.1)


def write_folder(
    model: PreTrainedModel, processor: ProcessorMixin, folder: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Write both as `from_pretrained` reads them; the model keeps its own dtype."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.to(dtype) for name, value in model.state_dict().items() if name != "lm_head.weight"}
    model.config.dtype = dtype
    model.save_pretrained(folder, state_dict=half)
    processor.save_pretrained(folder)
