"""Runs the sizes one after the other and puts a result together. Prints nothing."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from . import decode, entropy, fixation, fixation_grid, models, prefill, progressive, roofline, tower
from .architectures import ARCHITECTURES, architecture
from .machine import machine, versions
from .result import BenchResult
from .sizes import SIZES, Size, size
from .timer import clock_for, keep_freed_memory, system_seconds

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
    result = _empty(
        "cpu",
        quick,
        {
            "order": "every variant once a round, in an order drawn anew each round; ratios inside a round",
            "order of grids": "each variant against the dense path, A B B A; ratios of neighbours",
            "rounds": {},
            "system_seconds": {},
        },
    )
    result.sizes = {s.name: s.describe() for s in chosen}
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


def bench_models(
    names: Sequence[str] = (),
    *,
    quick: bool = False,
    pairs: int | None = None,
    device: str = "cpu",
    tick: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> BenchResult:
    """Measure architectures of real size, all of the table where none is named; `options` of `models.measure`.

    `pairs` A B pairs a method, rounded up to whole A B B A.
    """
    chosen = [architecture(name) for name in names] or list(ARCHITECTURES.values())
    quads = -(-(pairs or (2 if quick else 6)) // 2)
    result = _empty(
        device, quick, {"order": "A B B A, A = unpatched; ratios of neighbours", "pairs": 2 * quads}
    )
    for one in chosen:
        result.models += models.measure(one, quads, device=device, tick=tick, **options)
        gc.collect()
    return result


def bench_kernels(
    *,
    quick: bool = False,
    pairs: int | None = None,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    tick: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> BenchResult:
    """Measure every kernel beside the machine's ceilings; float32 on a CPU, bfloat16 elsewhere. Medians of `pairs`."""
    kind = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
    count = pairs or (3 if quick else 15)
    result = _empty(device, quick, {"stretches": count})
    result.kernels, result.ceilings = roofline.measure(count, dtype=kind, device=device, tick=tick, **options)
    return result


def _empty(device: str, quick: bool, protocol: dict[str, Any]) -> BenchResult:
    """A result with what it is measured with, and freed memory kept for the rest of the process."""
    place = torch.device(device)
    return BenchResult(
        versions=versions(),
        machine={**machine(place), "threads": 1},
        protocol={"clock": clock_for(place)[1], "memory": keep_freed_memory(), "quick": quick, **protocol},
        sizes={},
    )
