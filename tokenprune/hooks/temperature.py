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
_NAME = "tokenprune_temperature"


class Temperature:
    """The correction of every layer that scales its queries by their place; nothing on other models.

    Hooks hang on the layers while prompts with images go through, and not in decode steps, which have nothing to
    correct: the layers' input is as long as it seems. They have to come behind the hooks that cut.
    """

    def __init__(self, layers: nn.ModuleList, current: Callable[[], Step | None]) -> None:
        pairs: list[tuple[nn.Module, Any]] = [(layer, getattr(layer, "self_attn", None)) for layer in layers]
        self._found = [(layer, a) for layer, a in pairs if getattr(a, SWITCH, False) and not a.use_rope]
        self._current = current
        self._handles: list[Any] = []

    def on(self) -> None:
        if not self._handles:
            self._handles = [h for pair in self._found for h in _correct(*pair, self._current)]

    def off(self) -> None:
        while self._handles:
            self._handles.pop().remove()


def _correct(layer: nn.Module, attention: Any, current: Callable[[], Step | None]) -> list[Any]:
    ratio: Tensor | None = None  # between an attention's begin and its query projection

    def scale(place: Tensor) -> Tensor:
        return (
            torch.log1p(torch.floor((place.float() + 1.0) / attention.floor_scale)) * attention.attn_scale
            + 1.0
        )

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As an argument, for a checkpointed layer is run again when the step is long over."""
        step = current()
        if step is None or step.index is None:
            return None
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else cache.get_seq_length(attention.layer_idx)
        logical = step.index.clamp(min=0) + past
        physical = torch.arange(logical.shape[1], device=logical.device) + past
        return args, {**kwargs, _NAME: scale(logical) / scale(physical)}

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal ratio
        ratio = kwargs.pop(_NAME, None)
        return args, kwargs

    def correct(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if ratio is None:
            return None
        return (output * ratio[..., None].to(output.device)).to(output.dtype)

    return [
        layer.register_forward_pre_hook(enter, with_kwargs=True),
        attention.register_forward_pre_hook(begin, with_kwargs=True),
        attention.q_proj.register_forward_hook(correct),
    ]
