"""How far what the tower gives for a patch lies from the made-up token the decoder learnt from."""

from __future__ import annotations

import torch

from ..drawing import UNSURE


def weights(labels: dict[str, torch.Tensor], written: str) -> torch.Tensor:
    """(B, N): 1 for patches that show a thing or a character, a fifth for empty ones, nothing for slivers.

    `written` is the field of `labels` that says which character a patch shows.
    """
    sure = (labels[written] != UNSURE) & (labels["colour"] != UNSURE)
    shown = sure & ((labels[written] > 0) | (labels["colour"] > 0))
    return sure.float() * 0.2 + shown.float() * 0.8


def distance(seen: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted squared distance of (B, N, D) to the made-up tokens, over their own size."""
    each = (seen.float() - target).pow(2).sum(-1)
    return (each * weight).sum() / (target.pow(2).sum(-1) * weight).sum()
