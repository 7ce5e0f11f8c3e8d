"""What each row costs: a pass of its own after the answers, one sample at a time, beside the unpruned model.

Order A B B A (A unpruned, B the row), the same samples for every row, generated length fixed. Patching, image
decoding and the processor are outside the clock; the tower, the selection and the prompt are inside `prefill`.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch

from ..bench.generation import DECODED, Times, time_generation, timed
from ..bench.memory import peak_bytes
from ..bench.timer import Ratio, clock_for, quiet
from ..chat import Medium
from ..errors import TokenPruneError
from ..flops import LayerSize
from .answer import Answerer
from .journal import fingerprint, write_file
from .rows import NONE, Row
from .suite import Suite

FILE = "efficiency.json"
QUADS = 3
NOISY = 0.05
"""Coefficient of variation of the unpruned prefill past which the report warns."""


@dataclass(frozen=True)
class Cost:
    """One row's costs. Seconds, bytes and FLOPs per sample; ratios to the unpruned model measured beside it."""

    label: str
    keep: float | int | None
    key: str
    prefill: Ratio
    decode: Ratio  # one token
    total: Ratio  # of the whole `generate` of a few tokens
    vision: float  # seconds in the tower
    scoring: float  # seconds in the methods' `select`
    kv_bytes: float
    flops: float  # language model, prefill, by formula
    peak_bytes: float  # tensors allocated during one generate; above the weights


def measure_rows(
    folder: Path,
    answerer: Answerer,
    suite: Suite,
    rows: Sequence[Row],
    count: int,
    facts: Mapping[str, Any],
    *,
    quads: int = QUADS,
    tick: Callable[[int, int, str], None] | None = None,
) -> None:
    """Measure every row (one seed of each) on `count` samples and write `efficiency.json`.

    A complete file of the same run and the same rows is left as it is; times of different sittings are never mixed.
    """
    rows = [r for r in rows if r.seed in (None, 0)]
    mark = fingerprint({**facts, "rows": [r.key for r in rows], "count": count, "quads": quads})
    if (read_costs(folder) or {}).get("fingerprint") == mark:
        return
    samples = first_readable(suite, count)
    if not samples:
        return
    unpruned = next(r for r in rows if r.label == NONE)
    device = torch.device(answerer.chat.device)
    threads = torch.get_num_threads()
    costs, base, failed = [], [], {}
    with quiet(threads):
        clock, clock_name = clock_for(device, threads)
        for place, row in enumerate(rows):
            gc.collect()  # patches come and go in circles, and nobody collects inside `quiet`
            if tick is not None:
                tick(place, len(rows), f"timing {row.key}")
            try:
                cost, times = _measure(answerer, unpruned, row, samples, quads, clock)
            except (TokenPruneError, RuntimeError) as error:
                failed[row.key] = str(error)
                continue
            costs.append(cost)
            base += times
    noise = max((_variation(s) for s in _by_sample(base, len(samples))), default=0.0)
    body = {
        "fingerprint": mark,
        "protocol": {
            "order": "A B B A, A = unpruned", "pairs": 2 * quads * len(samples), "samples": len(samples),
            "batch": 1, "decoded_tokens": DECODED, "clock": clock_name, "threads": threads,
        },
        "noise": noise,
        "noisy": noise > NOISY,
        "rows": [asdict(c) for c in costs],
        "failed": failed,
    }  # fmt: skip
    write_file(folder / FILE, json.dumps(body, indent=1))


def read_costs(folder: Path) -> dict[str, Any] | None:
    """What `measure_rows` wrote, or None."""
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


Asked = tuple[Medium, str]


def first_readable(suite: Suite, count: int) -> list[Asked]:
    """The first samples about different pictures."""
    found: dict[str, Asked] = {}
    for sample in suite.samples:
        if len(found) == count:
            break
        if sample.group not in found:
            try:
                found[sample.group] = (sample.picture.load(), sample.question)
            except (TokenPruneError, OSError):
                continue
    return list(found.values())


def _measure(
    answerer: Answerer,
    unpruned: Row,
    row: Row,
    samples: Sequence[Asked],
    quads: int,
    clock: Callable[[], float],
) -> tuple[Cost, list[tuple[int, float]]]:
    plain: list[Times] = []
    pruned: list[Times] = []
    base: list[tuple[int, float]] = []
    scoring: list[float] = []
    sizes = []
    for place, sample in enumerate(samples):
        _once(answerer, unpruned, sample, clock)  # the first call pays for what is set up once
        _once(answerer, row, sample, clock)
        for _ in range(quads):
            order = (unpruned, row, row, unpruned)
            a, b, c, d = (_once(answerer, r, sample, clock) for r in order)
            plain += [a[0], d[0]]
            pruned += [b[0], c[0]]
            scoring += [b[1], c[1]]
            base += [(place, a[0].prefill), (place, d[0].prefill)]
        sizes.append(_sizes(answerer, row, sample))
    ratio = {
        part: Ratio.of([getattr(t, part) for t in pruned], [getattr(t, part) for t in plain])
        for part in ("prefill", "decode", "total")
    }
    kv, flops, peak = (mean(s[i] for s in sizes) for i in range(3))
    cost = Cost(
        row.label, row.keep, row.key, **ratio, vision=median(t.vision for t in pruned),
        scoring=median(scoring), kv_bytes=kv, flops=flops, peak_bytes=peak,
    )  # fmt: skip
    return cost, base


def _once(answerer: Answerer, row: Row, sample: Asked, clock: Callable[[], float]) -> tuple[Times, float]:
    """(times, seconds inside `select`) of one generate."""
    spent: list[float] = []
    with answerer.prepared(row, [sample[0]], [sample[1]]) as (inputs, handle):
        for method in handle.methods if handle is not None else ():
            # On the instance, which is this row's own: the class and its other users are not touched.
            object.__setattr__(method, "select", timed(method.select, clock, spent))
        times = time_generation(answerer.chat.model, inputs, tower=answerer.resizer.parts.tower)
    return times, sum(spent)


def _sizes(answerer: Answerer, row: Row, sample: Asked) -> tuple[float, float, float]:
    """(bytes of the KV cache after the prompt, FLOPs of the prefill, peak bytes) of one sample."""
    with answerer.prepared(row, [sample[0]], [sample[1]]) as (inputs, handle):
        peak = peak_bytes(lambda: time_generation(answerer.chat.model, inputs), answerer.chat.device)
        report = None if handle is None else handle.report
    if report is not None:
        return report.kv_bytes, report.flops, peak
    parts = answerer.resizer.parts
    sizes = [LayerSize.of(parts.text_config, k) for k in range(parts.num_layers)]
    length = inputs["input_ids"].shape[1]
    width = torch.finfo(answerer.chat.model.dtype).bits // 8
    return (
        length * sum(s.stored for s in sizes) * width,
        sum(s.flops(length, length) for s in sizes),
        peak,
    )


def _by_sample(base: Sequence[tuple[int, float]], count: int) -> list[list[float]]:
    return [[seconds for place, seconds in base if place == i] for i in range(count)]


def _variation(times: Sequence[float]) -> float:
    """Standard deviation over mean, of the middle nine tenths: one hiccup is not noise."""
    kept = sorted(times)[: max(2, int(len(times) * 0.9))]
    return stdev(kept) / mean(kept) if len(kept) > 1 and mean(kept) > 0 else 0.0
