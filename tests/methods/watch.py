"""A dispatch mode that counts operations and refuses those that make the host wait for the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
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
    """Counts dispatched operations; records the waiting ones and the largest tensor that was allocated.

    `computed` are those that a device has work with: not views, not numbers that the host wraps as tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()
        self.computed = 0
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
        self.computed += not func.is_view and name != "scalar_tensor"
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view:
            self.largest = max(self.largest, out.numel() * out.element_size())
        return out

    @property
    def total(self) -> int:
        return self.ops.total()


def peak_bytes(function: Callable[[], object]) -> int:
    """Most memory that the CPU's allocator had given out at once during a call, above what it had before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = function()
    now = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    del kept
    return most


def host_reads(monkeypatch) -> None:
    """Make the reads that no dispatch mode sees fail as well."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a tensor was read on the host")

    for name in ("tolist", "cpu", "numpy", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
