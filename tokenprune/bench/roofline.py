"""Each kernel beside what the machine can do: bytes a second of a copy, FLOPs a second of a matrix product.

Both ceilings are measured on the spot.

The least a kernel can take is the larger of two times: that of reading its arguments and writing its answer once, and
that of its matrix products. A reference that makes a matrix in memory moves more bytes than that, one that casts to
float32 makes slower products, and so their share of the ceiling says what a fused version has left to win.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .. import kernels
from ..kernels import assign, attention, clusters, decode, dpp, entropy, maxmin, progress
from .result import KernelRow
from .timer import clock_for, quiet


class Call(NamedTuple):
    """`function(*arguments, **named)`; no kernel here writes to its arguments."""

    kernel: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    read: int | None  # bytes, where it is not all of its arguments


COPIED = {"cpu": 2**28, "cuda": 2**31}  # bytes; well over a processor's cache
PRODUCT = {"cpu": 2048, "cuda": 8192}  # rows and columns
LEAST_SECONDS = {"cpu": 0.05, "cuda": 0.01}  # of one timed stretch
MOST_CALLS = 200


@torch.no_grad()
def measure(
    count: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    scale: float = 1.0,
    only: Sequence[str] = (),
    tick: Callable[[int, int, str], None] | None = None,
) -> tuple[list[KernelRow], dict[str, float]]:
    """Medians of `count` stretches of every kernel, and the ceilings. scale: of the numbers of tokens.

    On a GPU each kernel is measured in Triton, too; a `TokenPruneError` says why where Triton does not run.
    """
    chosen = [c for c in calls(dtype, device, scale) if not only or c.kernel in only]
    timed: list[tuple[Call, str, float]] = []
    with quiet(1):
        before = ceilings(device, dtype, scale)
        for done, call in enumerate(chosen):
            if tick is not None:
                tick(done, len(chosen), call.kernel)
            for backend in ("torch", "triton") if device == "cuda" else ("torch",):
                with kernels.backend(backend):
                    timed.append((call, backend, _seconds(call, count, device)))
        after = ceilings(device, dtype, scale)  # a busy neighbour may have lowered one of them
    ceiling = {name: max(speed, after[name]) for name, speed in before.items()}
    return [_row(call, backend, seconds, dtype, ceiling) for call, backend, seconds in timed], ceiling


def ceilings(device: str, dtype: torch.dtype, scale: float = 1.0) -> dict[str, float]:
    """{"bytes": copied a second, read and written; dtype: FLOPs a second of a square product}; the best of five."""
    clock, _ = clock_for(torch.device(device))
    half = torch.empty(int(COPIED[device] * scale), dtype=torch.uint8, device=device).fill_(1)
    into = torch.empty_like(half)
    found = {"bytes": 2 * half.numel() / _best(lambda: into.copy_(half), clock)}
    side = max(16, int(PRODUCT[device] * scale))
    for kind in {dtype, torch.float32}:
        a = torch.randn(side, side, device=device).to(kind)
        found[_name(kind)] = 2 * side**3 / _best(lambda a=a: a @ a, clock)
    return found


def calls(dtype: torch.dtype, device: str, scale: float = 1.0) -> list[Call]:
    """Every kernel at the size of a real call: a page in a 7B model, a picture in its tower, a clip of frames."""

    def draw(*shape: int, seed: int = 0) -> Tensor:
        g = torch.Generator().manual_seed(seed + len(shape))
        return torch.randn(shape, generator=g).to(device, dtype)

    def n(tokens: int) -> int:
        return max(16, int(tokens * scale))

    page, heads, shared, width = n(4900), 28, 4, 128
    query, key, value = (
        draw(1, heads, 1, width),
        draw(1, shared, page, width),
        draw(1, shared, page, width, seed=1),
    )
    columns = torch.randperm(page, generator=torch.Generator().manual_seed(2))[: n(245)].sort().values
    rows = decode.flat_rows(columns[None].to(device), shared, page)
    tower, towers = draw(1, 16, n(1024), 64), draw(1, 16, n(1024), 64, seed=1)
    prompt = draw(1, heads, n(2048), width)
    words, prompted = draw(1, heads, n(32), width), draw(1, shared, n(2048), width)
    tokens = kernels.unit(draw(1, n(2304), 1024))
    few = kernels.unit(draw(1, n(576), 1024))
    left = n(576) // 4
    label = (torch.arange(n(2304), device=device) % left)[None]
    ones = torch.ones(1, n(2304), device=device)
    cosines = draw(1, n(2304), 20).float() * 0.1
    scores = draw(1, n(2304)).float()
    frames = draw(1, 8, n(196), 896)
    scaling = width**-0.5
    even, odd = tokens[:, 0::2].to(dtype), tokens[:, 1::2].to(dtype)

    def call(function: Callable[..., Any], *arguments: Any, read: int | None = None, **named: Any) -> Call:
        return Call(function.__name__, function, arguments, named, read)

    picked = query.nbytes + rows.nbytes + 2 * rows.numel() * width * query.element_size()
    return [
        call(decode.dense_step, query, key, value, scaling),
        call(decode.sparse_step, query, key, value, rows, scaling, read=picked),
        call(attention.row_attention, query, key, scaling),
        call(attention.query_attention, words, prompted, scaling),
        call(attention.received_attention, tower, towers, 0.125),
        call(attention.column_attention, prompt, prompted, scaling, causal=True),
        call(kernels.max_similarity, even, odd),
        call(assign.best_match, even, odd),
        call(clusters.group_means, draw(1, n(2304), 1024), label, left, ones),
        call(maxmin.max_min, few, left),
        call(dpp.greedy_dpp, few, torch.zeros(few.shape[:2], device=device), left),
        call(entropy.matrix_entropy, draw(1, 32, n(576), 128), True, "chebyshev"),
        call(kernels.word_pool, cosines, None, 0.05),
        call(kernels.sharpened_relevance, scores, 0.05, 2.5, 0.1, 0.1),
        call(progress.novelty, frames),
    ]


def _row(
    call: Call, backend: str, seconds: float, dtype: torch.dtype, ceiling: dict[str, float]
) -> KernelRow:
    given = _tensors(call.arguments)
    with FlopCounterMode(display=False) as flops, kernels.backend("torch"):
        answer = call.function(*call.arguments, **call.named)
    read = _bytes(given) if call.read is None else call.read
    moved, work = read + _bytes(_tensors(answer)), flops.get_total_flops()
    kind = _name(dtype) if any(t.dtype == dtype for t in given) else "float32"
    least = {"bytes": moved / ceiling["bytes"], "flops": work / ceiling[kind]}
    bound = max(least, key=least.__getitem__)
    shapes = " ".join("x".join(map(str, t.shape)) for t in given[:2])
    return KernelRow(call.kernel, shapes, kind, backend, seconds, moved, work, least[bound], bound)


def _seconds(call: Call, count: int, device: str) -> float:
    """Median of `count` stretches, each as long as a clock needs."""
    clock, _ = clock_for(torch.device(device))

    def stretch(times: int) -> float:
        start = clock()
        for _ in range(times):
            call.function(*call.arguments, **call.named)
        return max((clock() - start) / times, 1e-9)

    stretch(1)
    times = max(1, min(MOST_CALLS, int(LEAST_SECONDS[device] / max(stretch(1), 1e-6))))
    return statistics.median(stretch(times) for _ in range(count))


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _tensors(values: Any) -> list[Tensor]:
    """What a call reads or gives, tuples opened."""
    if isinstance(values, Tensor):
        return [values]
    return [t for v in values for t in _tensors(v)] if isinstance(values, (tuple, list)) else []


def _best(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    run()
    times = []
    for _ in range(5):
        start = clock()
        run()
        times.append(clock() - start)
    return max(min(times), 1e-9)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
