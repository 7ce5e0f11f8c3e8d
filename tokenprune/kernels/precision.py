"""The numeric conditions under which tokens are ranked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def ranking(like: Tensor) -> Iterator[None]:
    """Rank in float32: no autocast may shorten a product, and an order of tokens has no gradient."""
    with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        yield
