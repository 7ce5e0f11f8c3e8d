"""The small clip on which published rules were worked out by hand: four frames of six tokens, four features."""

from __future__ import annotations

import math

import torch

from tokenprune.tokens import VisualTokens

from .make import clip


def toy_features() -> torch.Tensor:
    """(4, 6, 4): cos(.7 n + 1.3 d + .4 n d), two tokens that change from frame to frame, and one that jumps."""
    x = torch.zeros(4, 6, 4)
    for t in range(4):
        for n in range(6):
            for d in range(4):
                x[t, n, d] = math.cos(0.7 * n + 1.3 * d + 0.4 * n * d)
                if n in (2, 3):
                    x[t, n, d] += 1.2 * t * math.sin(0.9 * t + 0.5 * n + 1.1 * d)
    x[3, 5] = torch.tensor([2.0, -1.0, 0.5, 1.0])
    return x


def toy(**fields) -> VisualTokens:
    """The clip as a group of one."""
    layout = clip(4, 2, 3)
    return VisualTokens(
        toy_features().view(1, 24, 4), layout.grid, "video", layout.coords, torch.zeros(1).long(), **fields
    )
