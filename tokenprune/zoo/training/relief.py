"""What the ground under each patch is like, in numbers that no sun changes: easier to learn than to tell patches apart.

A contrast only says whether two patches show the same; a tower that has to say what they show gets an answer for every
number of every patch, and begins to tell grounds apart many steps earlier.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..terrain import Frame, cut

MARGIN = 4
"""Patches around a frame whose ground is looked up too."""
FINE, COARSE = 6, 7
"""Heights to a side: half a patch apart over three patches, and a patch apart over seven."""
NUMBERS = FINE**2 + COARSE**2
STEEP = 8.0
"""Slopes well below 1 / STEEP are told in proportion, steeper ones by their logarithm."""


def relief(height: np.ndarray, own: Frame, frame: Frame, n: int) -> Tensor:
    """(n * n, 85) heights around each of the n x n patches of `frame`, against their mean.

    `height`: those of the ground in the frame `own`. The unit is a patch's side, so near and far pictures of one ground
    differ by a factor only.
    """
    cx, cy, half, turn = frame
    wide = n + 2 * MARGIN
    ground = torch.from_numpy(cut(height, own, (cx, cy, half * wide / n, turn), 2 * wide)).float()
    ground = ground[None, None] * (n / (2 * half))
    first, last = 2 * MARGIN - (FINE - 2) // 2, 2 * (MARGIN + n) + (FINE - 2) // 2
    fine = F.unfold(ground[..., first:last, first:last], FINE, stride=2)[0].T
    first, last = MARGIN - COARSE // 2, MARGIN + n + COARSE // 2
    coarse = F.unfold(F.avg_pool2d(ground, 2)[..., first:last, first:last], COARSE)[0].T
    parts = [part - part.mean(1, keepdim=True) for part in (fine, coarse)]
    return torch.cat([torch.asinh(STEEP * part) for part in parts], 1)


def make_head(width: int) -> nn.Linear:
    """Reads the numbers off a token; thrown away after training."""
    return nn.Linear(width, NUMBERS)


def relief_loss(head: nn.Module, patches: Tensor, wanted: Tensor) -> Tensor:
    """Squared error as a share of the variance: 1 for a head that knows nothing. (B, N, D) and (B, N, 85)."""
    spread = wanted.var((0, 1)).clamp_min(1e-4)
    return ((head(patches.float()) - wanted).square().mean((0, 1)) / spread).mean()
