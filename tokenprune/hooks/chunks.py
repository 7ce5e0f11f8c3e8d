"""Features that were computed ahead and come back without what was noted on them.

`generate` encodes all images at once. Under accelerate their output is rebuilt on its way to a layer's device; with
`prefill_chunk_size` a call gets some rows of it, and nothing says of which image.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import PatchError
from .layout import Features


class Chunks:
    """What was encoded ahead and has not been merged in yet."""

    def __init__(self, features: Callable[[Any], Any]) -> None:
        self._features = features  # of an output, those that are merged in
        self._ahead: dict[str, tuple[Features, Any, int]] = {}  # modality -> (whole, its output, rows taken)

    def remember(self, modality: str, whole: Features, output: Any) -> None:
        """Images were encoded; the calls that read them may follow."""
        self._ahead[modality] = (whole, output, 0)

    def forget(self, modality: str) -> None:
        """They were read in one call."""
        self._ahead.pop(modality, None)

    def rebuilt(self, modality: str, output: Any) -> Features | None:
        """What is known of `output` if it is the one encoded ahead on other tensors, perhaps repeated for beams."""
        whole, encoded, start = self._ahead.get(modality, (None, None, 0))
        if whole is None or start or not whole.shapes or _fields(output) != _fields(encoded):
            return None
        rows, given, first = self._rows(encoded), self._rows(output), whole.shapes[0].n
        same = len(given) % len(rows) == 0 and torch.equal(given[:first].to(rows.device), rows[:first])
        return whole if same else None

    def take(self, modality: str, output: Any, batch: int, joined: bool) -> Features | None:
        """The images whose (n, D) rows in `output` are the next ones of what was encoded; None: they are not.

        joined: several of them may be one picture or clip by the words between them, so that all have to come at once.
        Raises `PatchError` where a chunk ends inside an image, which a method has to see whole, and for a batch,
        whose rows share a chunk in an order that no longer tells one image from the next.
        """
        if modality not in self._ahead:
            return None
        whole, encoded, start = self._ahead[modality]
        rows, given = self._rows(encoded), self._rows(output)
        end = start + len(given)
        if end > len(rows) or not torch.equal(rows[start:end], given.to(rows.device)):
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

    def _rows(self, output: Any) -> Tensor:
        """Features of any nesting as (rows, D)."""
        return torch.cat([f.reshape(-1, f.shape[-1]) for f in self._features(output)])


def _fields(output: Any) -> list[str]:
    """Names in an output; a chunk of it has fewer."""
    return sorted(output.keys()) if hasattr(output, "keys") else []
