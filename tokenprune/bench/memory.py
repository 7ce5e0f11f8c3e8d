"""Peak memory of a call, on an accelerator or on the host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch


def peak_bytes(work: Callable[[], Any], device: torch.device | str) -> int:
    """Most bytes of tensors alive at once that `work` allocated itself; what was there before does not count.

    On CUDA from the allocator's own counter; elsewhere summed from the profiler's allocation events, in order of time.
    """
    place = torch.device(device)
    if place.type == "cuda":
        torch.cuda.synchronize(place)
        torch.cuda.reset_peak_memory_stats(place)
        before = torch.cuda.memory_allocated(place)
        work()
        torch.cuda.synchronize(place)
        return torch.cuda.max_memory_allocated(place) - before
    with (
        _mute(),
        torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile,
    ):
        work()
    results: Any = profile.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


@contextlib.contextmanager
def _mute() -> Iterator[None]:
    """The profiler's library writes lines of its own to the error stream, past Python."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
