"""Each row's most similar one."""

from __future__ import annotations

from torch import Tensor

from ..assign import APART
from .similarity import nearest


def best_match(
    a: Tensor, b: Tensor, sorts: tuple[Tensor, Tensor] | None = None, block_bytes: int = 0
) -> tuple[Tensor, Tensor | None]:
    """As the reference; nothing is made in blocks."""
    return nearest(a, b, sorts, APART, True)
