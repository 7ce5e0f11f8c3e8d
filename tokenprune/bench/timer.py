"""Clocks and orders of measurement that survive a shared machine.

Two things made ratios wrong here: threads that wait for each other on busy cores (so: one thread, and the time this
process was given, not the time that passed), and a C library that hands memory back to the system after every run
and faults it in again during the next, which looks like 10 to 17 % of patch cost (so: user time, and no trimming).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

T = TypeVar("T")

CLOCK = "user CPU time of the process" if resource else "CPU time of the process"


def cpu_seconds() -> float:
    """Seconds of CPU this process has used in its own code so far; not in the kernel, where that can be told."""
    if resource is None:
        return time.process_time()
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def system_seconds() -> float:
    """Seconds the kernel has spent for this process; a large share of a run's total says memory is being faulted."""
    return 0.0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_stime


def wall_seconds() -> float:
    """Wall clock, once an accelerator has finished what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def clock_for(device: torch.device, threads: int = 1) -> tuple[Callable[[], float], str]:
    """The clock to measure work on `device` with, and its name. CPU time says nothing of several threads."""
    if device.type == "cpu" and threads == 1:
        return cpu_seconds, CLOCK
    return wall_seconds, "wall clock"


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """`count` torch threads inside; None or 0 leaves them as they are."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def quiet(threads: int = 1) -> Iterator[None]:
    """`threads` torch threads and no garbage collection inside."""
    collecting = gc.isenabled()
    with torch_threads(threads):
        gc.collect()
        gc.disable()
        try:
            yield
        finally:
            if collecting:
                gc.enable()


def keep_freed_memory() -> str:
    """Ask the C library to keep what is freed, for the rest of the process; returns what was done, for the record."""
    by_hand = [n for n in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_") if n in os.environ]
    if by_hand:
        return f"set in the environment: {', '.join(by_hand)}"
    if not sys.platform.startswith("linux"):
        return "left as it is (not Linux)"
    trim, mmap, most = -1, -3, 2**31 - 1  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    try:
        mallopt = ctypes.CDLL(None).mallopt
        done = mallopt(trim, most) and mallopt(mmap, 2**30)
    except (OSError, AttributeError):  # a C library that is not glibc
        done = 0
    return "mallopt: trim and mmap thresholds raised" if done else "left as it is (no mallopt)"


def abba(first: Callable[[], T], second: Callable[[], T], quads: int) -> tuple[list[T], list[T]]:
    """Call both 2 * `quads` times in the order A B B A; item i of one list was measured next to item i of the other."""
    a: list[T] = []
    b: list[T] = []
    for _ in range(quads):
        a.append(first())
        b.append(second())
        b.append(second())
        a.append(first())
    return a, b


def rounds(variants: dict[str, Callable[[], None]], count: int, seed: int = 0) -> Iterator[dict[str, float]]:
    """`count` rounds in which every variant runs once, in an order drawn anew: {variant: CPU seconds}."""
    order, rng = list(variants), random.Random(seed)
    for _ in range(count):
        rng.shuffle(order)
        taken = {}
        for name in order:
            start = cpu_seconds()
            variants[name]()
            taken[name] = cpu_seconds() - start
        yield taken


@dataclass(frozen=True)
class Ratio:
    """One thing's time as a share of another's, from pairs measured next to each other."""

    median: float  # of the pairs' ratios
    minimum: float  # smallest time over smallest time: what is left when nothing else disturbed
    low: float  # quartiles of the pairs' ratios
    high: float
    pairs: int
    seconds: float  # median time of the thing
    base_seconds: float  # median time of what it is compared with

    @classmethod
    def of(cls, times: Sequence[float], base: Sequence[float]) -> Ratio:
        """From equally long lists whose items i were measured side by side."""
        each = sorted(t / max(b, 1e-9) for t, b in zip(times, base, strict=True))
        low, _, high = statistics.quantiles(each, n=4) if len(each) > 1 else (each[0],) * 3
        return cls(
            median=statistics.median(each),
            minimum=min(times) / max(min(base), 1e-9),
            low=low,
            high=high,
            pairs=len(each),
            seconds=statistics.median(times),
            base_seconds=statistics.median(base),
        )
