"""Decoders that get deeper from phase to phase: one that has learnt something is the start of a deeper one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def grow(model: Model, deep: Model) -> Model:
    """`deep` with nearly the function of `model`: every layer several times, each copy adding its share."""
    short, layers = len(model.layers), len(deep.layers)
    deep.embed_tokens.load_state_dict(model.embed_tokens.state_dict())
    deep.norm.load_state_dict(model.norm.state_dict())
    for i, layer in enumerate(deep.layers):
        layer.load_state_dict(model.layers[i * short // layers].state_dict())
        for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
            weight.mul_(short / layers)
    return deep


def grown(model: Model, layers: int, new: Callable[[int], Model]) -> Model:
    """`model` where it has that many layers, else a new one grown from it."""
    return model if len(model.layers) == layers else grow(model, new(layers))


def read(state: dict[str, Any], new: Callable[[int], Model]) -> Model:
    """The decoder in the file of a phase that trains nothing else of the model."""
    model = new(int(state["layers"]))
    model.load_state_dict(state["model"])
    return model
