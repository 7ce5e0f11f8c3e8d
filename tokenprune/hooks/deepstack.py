"""DeepStack: visual features that a text model adds behind its first layers, cut like the tokens they belong to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .step import Step

NAME = "_deepstack_process"


def wrap_deepstack(text: nn.Module, current: Callable[[], Step | None]) -> Callable[[], None]:
    """Let the text model add its levels to shortened hidden states; returns the undo. No-op on other models."""
    original = getattr(text, NAME, None)
    if original is None:
        return lambda: None

    def process(hidden: Tensor, visual: Tensor, embeds: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        step = current()
        if step is None or step.index is None:
            return original(hidden, visual, embeds, *args, **kwargs)
        for merge in step.merges:
            embeds = merge(embeds, visual)
        visual, embeds = visual.to(hidden.device), embeds.to(hidden.device, hidden.dtype)
        source = (visual.flatten().long().cumsum(0) - 1).clamp(min=0)  # row of `embeds` at each logical place
        flat = step.flat.to(hidden.device)  # type: ignore[union-attr]
        here = (visual.flatten()[flat] & (step.index.flatten() >= 0).to(hidden.device)).view(hidden.shape[:2])
        added = embeds[source[flat]].view_as(hidden)
        return torch.where(here[..., None], hidden + added, hidden)

    text.__dict__[NAME] = process
    return lambda: text.__dict__.pop(NAME, None)
