"""Runs the sizes one after the other and puts a result together. Prints nothing."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

from . import decode, entropy, fixation, prefill, progressive
from .machine import machine, versions
from .result import BenchResult
from .sizes import SIZES, Size, size
from .timer import CLOCK, keep_freed_memory, system_seconds

KINDS = {
    "prefill": prefill.measure,
    "decode": decode.measure,
    "entropy": entropy.measure,
    "fixation": fixation.measure,
    "progressive": progressive.measure,
}


def bench(
    only: Sequence[str | Size] = (),
    *,
    quick: bool = False,
    pairs: int | None = None,
    tick: Callable[[int, int, str], None] | None = None,
) -> BenchResult:
    """Measure every size, or those in `only`.

    quick: fewer rounds, for a first look; `pairs` sets their number. Unknown names raise with their neighbours.
    The C library is told to keep freed memory for the rest of the process, see `timer.keep_freed_memory`.
    """
    chosen = [s if isinstance(s, Size) else size(s) for s in only] or list(SIZES.values())
    memory = keep_freed_memory()
    result = BenchResult(
        versions=versions(),
        machine={**machine(), "threads": 1},
        protocol={
            "clock": CLOCK,
            "order": "every variant once a round, in an order drawn anew each round; ratios inside a round",
            "memory": memory,
            "quick": quick,
            "rounds": {},
            "system_seconds": {},
        },
        sizes={s.name: s.describe() for s in chosen},
    )
    for one in chosen:
        count = pairs or (one.quick if quick else one.rounds)
        before = system_seconds()
        result.lines += KINDS[one.kind](one, count, tick=tick)
        result.protocol["rounds"][one.name] = count
        result.protocol["system_seconds"][one.name] = round(system_seconds() - before, 3)
        gc.collect()  # the last size's weights
    return result
