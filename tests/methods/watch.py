"""A dispatch mode that counts operations and refuses those that make the host wait for the device."""

from __future__ import annotations

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = (
    "_local_scalar_dense",
    "nonzero",
    "item",
    "masked_select",
    "unique",
    "_unique2",
    "is_nonzero",
    "equal",
)


class Watch(TorchDispatchMode):
    """Counts dispatched operations; records the waiting ones and the largest tensor that was allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()
        self.waits: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        self.ops[name] += 1
        masks = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if name in WAITS or masks:
            self.waits.append(str(func))
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view:
            self.largest = max(self.largest, out.numel() * out.element_size())
        return out

    @property
    def total(self) -> int:
        return self.ops.total()


def host_reads(monkeypatch) -> None:
    """Make the reads that no dispatch mode sees fail as well."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a tensor was read on the host")

    for name in ("tolist", "cpu", "numpy", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
