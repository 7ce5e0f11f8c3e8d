"""Prefill in chunks: `generate` encodes all images at once and hands their features over `prefill_chunk_size` tokens a
call, with nothing said of which image they belong to."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from ..errors import PatchError
from .layout import Features


class Chunks:
    """What was encoded ahead and has not been merged in yet."""

    def __init__(self) -> None:
        self._ahead: dict[
            str, tuple[Features, Any, int]
        ] = {}  # modality -> (whole, its features, rows taken)

    def remember(self, modality: str, whole: Features, pooled: Any) -> None:
        """Images were encoded; the calls that read them may follow."""
        self._ahead[modality] = (whole, pooled, 0)

    def forget(self, modality: str) -> None:
        """They were read in one call."""
        self._ahead.pop(modality, None)

    def take(self, modality: str, pooled: Any, batch: int, joined: bool) -> Features | None:
        """The images whose (n, D) rows `pooled` are the next ones of what was encoded; None: they are not.

        joined: several of them may be one picture or clip by the words between them, so that all have to come at once.
        Raises `PatchError` where a chunk ends inside an image, which a method has to see whole, and for a batch,
        whose rows share a chunk in an order that no longer tells one image from the next.
        """
        if modality not in self._ahead:
            return None
        whole, encoded, start = self._ahead[modality]
        rows, given = _rows(encoded), _rows(pooled)
        end = start + len(given)
        if end > len(rows) or not torch.equal(rows[start:end], given):
            return None
        if batch > 1:
            raise PatchError(
                "a patched model reads a batch whole; leave out prefill_chunk_size, or go row by row"
            )
        ends = [0, *itertools.accumulate(s.n for s in whole.shapes)]
        if start not in ends or end not in ends or (joined and end - start < len(rows)):
            most = len(rows) if joined else max(s.n for s in whole.shapes)
            raise PatchError(
                f"prefill_chunk_size cuts an image apart, which has to be seen whole to be shortened (they have up to "
                f"{most} tokens); choose it so that chunks end between images, or leave it out"
            )
        if end == len(rows):
            del self._ahead[modality]
        else:
            self._ahead[modality] = (whole, encoded, end)
        return whole.images(ends.index(start), ends.index(end))


def _rows(pooled: Any) -> Tensor:
    """Features of any nesting as (rows, D)."""
    return torch.cat([f.reshape(-1, f.shape[-1]) for f in pooled])
