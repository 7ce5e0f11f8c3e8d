"""Runs the sizes one after the other and puts a result together. Prints nothing."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace

from . import decode, entropy, fixation, fixation_grid, prefill, progressive, tower
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
    "tower": tower.measure,
}
GRIDS = {"fixation grid": fixation_grid.measure}


def bench(
    only: Sequence[str | Size] = (),
    *,
    quick: bool = False,
    pairs: int | None = None,
    lengths: Sequence[int] = (),
    batches: Sequence[int] = (),
    tick: Callable[[int, int, str], None] | None = None,
) -> BenchResult:
    """Measure those in `only`, or every size that is not measured only when asked for.

    quick: fewer rounds, for a first look; `pairs` sets their number. Unknown names raise with their neighbours.
    `lengths` (visual tokens) and `batches` are for sizes that are measured over a grid of both.
    The C library is told to keep freed memory for the rest of the process, see `timer.keep_freed_memory`.
    """
    chosen = [s if isinstance(s, Size) else size(s) for s in only] or [
        s for s in SIZES.values() if not s.asked
    ]
    if lengths or batches:
        grid = {k: tuple(v) for k, v in (("lengths", lengths), ("batches", batches)) if v}
        chosen = [replace(s, **grid) if s.lengths else s for s in chosen]
    memory = keep_freed_memory()
    result = BenchResult(
        versions=versions(),
        machine={**machine(), "threads": 1},
        protocol={
            "clock": CLOCK,
            "order": "every variant once a round, in an order drawn anew each round; ratios inside a round",
            "order of grids": "each variant against the dense path, A B B A; ratios of neighbours",
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
        if one.kind in GRIDS:
            result.cells += GRIDS[one.kind](one, count, tick=tick)
        else:
            result.lines += KINDS[one.kind](one, count, tick=tick)
        result.protocol["rounds"][one.name] = count
        result.protocol["system_seconds"][one.name] = round(system_seconds() - before, 3)
        gc.collect()  # the last size's weights
    return result
