"""Attention temperature that grows with the position (arXiv:2501.19399), where a layer counts the tokens it is given.

Llama 4 scales the queries of its layers without RoPE by s(p) = 1 + attn_scale log(1 + floor((p + 1) / floor_scale)),
and takes p from the place in its input. In a shortened sequence that place is physical; the query projection is
multiplied by s(logical) / s(physical), so that s(logical) is what remains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .step import Step

SWITCH = "attn_temperature_tuning"


def wrap_temperature(layers: nn.ModuleList, current: Callable[[], Step | None]) -> Callable[[], None]:
    """Correct every layer that scales its queries by their place; returns the undo. No-op on other models."""
    handles = []
    for layer in layers:
        attention: Any = getattr(layer, "self_attn", None)
        if getattr(attention, SWITCH, False) and not attention.use_rope:
            handles += _correct(attention, current)

    def undo() -> None:
        for handle in handles:
            handle.remove()

    return undo


def _correct(attention: Any, current: Callable[[], Step | None]) -> list[Any]:
    past = 0

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal past
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else cache.get_seq_length(attention.layer_idx)

    def scale(place: Tensor) -> Tensor:
        steps = torch.floor((place.float() + past + 1.0) / attention.floor_scale)
        return torch.log1p(steps) * attention.attn_scale + 1.0

    def correct(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        step = current()
        if step is None or step.index is None:
            return None
        logical = step.index.clamp(min=0).to(output.device)
        ratio = scale(logical) / scale(torch.arange(logical.shape[1], device=output.device))
        return (output * ratio[..., None]).to(output.dtype)

    return [
        attention.register_forward_pre_hook(begin, with_kwargs=True),
        attention.q_proj.register_forward_hook(correct),
    ]
