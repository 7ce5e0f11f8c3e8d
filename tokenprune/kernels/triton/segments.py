"""Means of segments that all images share."""

from __future__ import annotations

from torch import Tensor

from .clusters import means


def segment_mean(values: Tensor, segment: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """As the reference."""
    if not count:
        return NotImplemented
    return means(values, segment.unsqueeze(0), count, None if weight is None else weight.unsqueeze(0))
