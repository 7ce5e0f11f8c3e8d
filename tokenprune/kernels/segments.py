"""Means over groups of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from .switch import with_triton


@with_triton("segments")
def segment_mean(values: Tensor, segment: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """(S, N, D), (N,) segment of each token in [0, count), (N,) weights >= 0 -> (S, count, D) weighted means.

    Sums run in float32 and come back in the dtype of `values`; a segment without weight is zero. Linear in
    `values`, differentiable.
    """
    one = torch.ones(segment.shape[0], device=values.device) if weight is None else weight.float()
    mass = torch.zeros(count, device=values.device).index_add(0, segment, one).clamp_min(1e-12)
    wide = values.float() if weight is None else values.float() * one.unsqueeze(1)
    sums = torch.zeros(values.shape[0], count, values.shape[2], device=values.device)
    return (sums.index_add(1, segment, wide) / mass.unsqueeze(1)).to(values.dtype)
