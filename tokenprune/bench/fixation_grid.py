"""Where fixation pays: one layer's decode attention against one layer's weights, over pages and batches.

The fastest dense path is found first, in a trial, and then measured in the order A B B A against what a focal and a
sparse layer of the hooks do, against the layer's matrix products, and against itself (the noise). Whole steps are put
together from these pairs for 1, 3 and 7 focal layers; norms, rotary positions and the cache's own growth are left
out, they are alike on both sides. Every call reads another cache, as layer after layer does in a model: so many that
even the keys of the sparse layers do not stay in a processor's cache, and as few as memory allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import TokenPruneError
from ..hooks.fixation import Fixations
from ..hooks.gaze import Gaze
from ..kernels.decode import dense_step
from ..methods import get_method
from .fixation import ideal
from .result import Cell
from .sizes import Size
from .timer import Ratio, abba, cpu_seconds, quiet

FOCAL = (1, 3, 7)
COLD = 256 * 2**20  # bytes read before the same keys are read again, well over a processor's cache
MOST_BYTES = 3 * 10**9  # of all caches
LEAST_SECONDS = 0.02  # of one timed stretch
HEAD_PARTS = 8  # the vocabulary's projection is timed on an eighth of its rows
PAYS = 0.9  # of the dense step's time with 3 focal layers, or less


@torch.no_grad()
def measure(size: Size, count: int, *, tick: Callable[[int, int, str], None] | None = None) -> list[Cell]:
    """About `count` pairs for every length and batch of a size; what does not fit into memory is said in its cell."""
    budget = min(MOST_BYTES, int(0.5 * free_bytes()))
    g = torch.Generator().manual_seed(0)
    todo = [(v, b) for b in size.batches for v in size.lengths]
    plans = {(v, b): plan(size, v, b, budget) for v, b in todo}
    most = max((caches * one for caches, one in plans.values()), default=0)
    store = _noise(most // size.dtype.itemsize, size.dtype, g)
    cells: list[Cell] = []
    with quiet():
        weights = Weights(size, g)
        for done, (visual, batch) in enumerate(todo):
            if tick is not None:
                tick(done, len(todo), f"{size.name}: {visual} visual tokens, batch {batch}")
            caches, one = plans[visual, batch]
            chosen, found = get_method("fixation", keep=size.keep).num_read(visual), {}
            if caches:
                layer = Layer(size, visual, batch, store[: caches * one // size.dtype.itemsize], g)
                found = _timed(size, layer, weights, count)
            else:
                found["note"] = (
                    f"{visual} visual tokens, batch {batch}: left out, one layer's keys and values take "
                    f"{one / 1e9:.2g} GB and {budget / 1e9:.2g} GB were allowed"
                )
            cells.append(Cell(size.name, visual, size.text, batch, chosen, caches, **found))
    if tick is not None:
        tick(len(todo), len(todo), size.name)
    return cells


def plan(size: Size, visual: int, batch: int, budget: int) -> tuple[int, int]:
    """(caches to read in turn, 0 where not one fits, bytes of each)."""
    key = 2 * batch * size.kv_heads * (size.hidden // size.heads) * size.dtype.itemsize  # and its value
    sparse = key * (get_method("fixation", keep=size.keep).num_read(visual) + size.text)
    one = key * (visual + size.text)
    return min(math.ceil(COLD / sparse), budget // one), one


class Layer:
    """Queries, distinct caches and the state of conversations about one page each."""

    def __init__(self, size: Size, visual: int, batch: int, store: Tensor, g: torch.Generator) -> None:
        self.width, stored = size.hidden // size.heads, visual + size.text
        self.query = torch.randn(batch, size.heads, 1, self.width, generator=g).to(size.dtype)
        self.caches = store.view(-1, 2, batch, size.kv_heads, stored, self.width)
        self.scaling = self.width**-0.5
        self.method = get_method("fixation", keep=size.keep, focal=(0,))
        parts: Any = SimpleNamespace(num_layers=2, layers=[])
        self.fixations = Fixations(parts, self.method, None)
        places = (torch.arange(visual) + size.text // 2).expand(batch, -1).contiguous()
        self.gaze = Gaze(None, places, [visual] * batch, stored)
        self.slot = SimpleNamespace()  # a plain layer: no history of cuts

    def over(self, work: Callable[[Tensor, Tensor], Any]) -> Callable[[], None]:
        """`work` on every cache in turn."""

        def run() -> None:
            for cache in self.caches:
                work(cache[0], cache[1])

        return run

    def paths(self) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        """Ways to attend to everything that never repeat keys or values."""
        heads = self.caches.shape[3]
        folded = self.query.squeeze(2).unflatten(1, (heads, -1))

        def attend(query: Tensor, key: Tensor, value: Tensor, shared: bool) -> Tensor:
            return F.scaled_dot_product_attention(query, key, value, scale=self.scaling, enable_gqa=shared)

        return {
            "matmul folded": lambda k, v: dense_step(self.query, k, v, self.scaling)[0],
            "sdpa folded": lambda k, v: attend(folded, k, v, False).flatten(1, 2).unsqueeze(2),
            "sdpa gqa": lambda k, v: attend(self.query, k, v, True),
        }

    def focal(self, key: Tensor, value: Tensor) -> Tensor:
        """A focal layer, and once a choice the index of what is read from then on."""
        self.gaze.trail.clear()
        out = self._attend(0, key, value)
        self.gaze.read(self.slot, key.shape[2], key.shape[1], self.fixations.most(self.gaze))
        return out

    def sparse(self, key: Tensor, value: Tensor) -> Tensor:
        """Any other layer, after a choice."""
        return self._attend(1, key, value)

    def _attend(self, place: int, key: Tensor, value: Tensor) -> Tensor:
        out = self.fixations.attend(self.gaze, place, self.slot, self.query, key, value, None, self.scaling)
        if out is None:
            raise TokenPruneError("bench fixation: a sparse layer was asked before any focal one")
        return out


class Weights:
    """A decoder layer's matrices, and a part of the vocabulary's."""

    def __init__(self, size: Size, g: torch.Generator) -> None:
        shared = 2 * size.kv_heads * (size.hidden // size.heads)
        rows = {"qkv": size.hidden + shared, "o": size.hidden, "up": 2 * size.inner}
        rows["head"] = size.vocabulary // HEAD_PARTS
        self.of = {k: _noise(n * size.hidden, size.dtype, g).view(n, size.hidden) for k, n in rows.items()}
        self.of["down"] = _noise(size.inner * size.hidden, size.dtype, g).view(size.hidden, size.inner)

    def linears(self, x: Tensor) -> None:
        """(B, hidden) through a layer's products; what lies between them is left out."""
        F.linear(x, self.of["qkv"])
        F.linear(x, self.of["o"])
        F.linear(F.linear(x, self.of["up"]).chunk(2, -1)[0], self.of["down"])

    def head(self, x: Tensor) -> None:
        F.linear(x, self.of["head"])


def _timed(size: Size, layer: Layer, weights: Weights, count: int) -> dict[str, Any]:
    key, value = layer.caches[0]
    paths, answers, trial = layer.paths(), {}, {}
    for name, path in paths.items():
        path(key, value)
        start = cpu_seconds()
        answers[name] = path(*layer.caches[-1])
        trial[name] = (cpu_seconds() - start) * 1000
    _agree(answers)
    # Close ones are tried again, over all caches; a stock path ten times slower is not waited for.
    least = min(trial.values())
    for name, path in paths.items():
        if trial[name] <= 3 * least:
            run = _stretch(layer.over(path))
            trial[name] = min(run(), run()) / len(layer.caches) * 1000
    fastest = min(trial, key=trial.__getitem__)
    layer.over(layer.focal)()
    x = torch.randn(layer.query.shape[0], size.hidden).to(size.dtype)
    dense = _stretch(layer.over(paths[fastest]))
    others = {
        "again": _stretch(layer.over(paths[fastest])),
        "focal": _stretch(layer.over(layer.focal)),
        "sparse": _stretch(layer.over(layer.sparse)),
        "linears": _stretch(lambda: weights.linears(x)),
        "head": _stretch(lambda: weights.head(x)),
    }
    found: dict[str, Ratio] = {}
    for name, run in others.items():
        base, times = abba(dense, run, max(1, count // 2))
        here = 1 if name in ("linears", "head") else len(layer.caches)
        found[name] = Ratio.of([t / here for t in times], [b / len(layer.caches) for b in base])
    costs = {name: ratio.median for name, ratio in found.items()}
    costs["head"] *= HEAD_PARTS
    return dict(
        dense_path=fastest,
        trial_ms=trial,
        noise=found["again"],
        dense_ms=found["sparse"].base_seconds * 1000,
        focal_ms=found["focal"].seconds * 1000,
        sparse_ms=found["sparse"].seconds * 1000,
        linears_ms=found["linears"].seconds * 1000,
        head_ms=found["head"].seconds * HEAD_PARTS * 1000,
        **assemble(size, layer.gaze.counts[0], costs),
    )


def assemble(size: Size, visual: int, costs: dict[str, float]) -> dict[str, Any]:
    """Whole steps from `costs`, each in units of one layer's dense attention: focal, sparse, linears, head."""
    layers = size.layers
    weights = layers * costs["linears"] + costs["head"]
    counts = [m for m in FOCAL if m <= layers]
    attention = {m: (m * costs["focal"] + (layers - m) * costs["sparse"]) / layers for m in counts}
    step = {m: (layers * ratio + weights) / (layers + weights) for m, ratio in attention.items()}
    methods = {m: get_method("fixation", keep=size.keep, focal=m) for m in counts}
    share = layers / (layers + weights)
    usual = step.get(3, step[1])
    reason = "weights dominate" if share < 2 * (1 - PAYS) else "choosing costs"
    return dict(
        dense_share=share,
        attention={str(m): ratio for m, ratio in attention.items()},
        step={str(m): ratio for m, ratio in step.items()},
        ideal={str(m): ideal(size, method, visual) for m, method in methods.items()},
        verdict="pays" if usual <= PAYS else reason,
    )


def _stretch(run: Callable[[], Any]) -> Callable[[], float]:
    """Seconds of one `run`, taken over as many as a clock needs."""
    start = cpu_seconds()
    run()
    times = max(1, min(100, math.ceil(LEAST_SECONDS / max(cpu_seconds() - start, 1e-4))))

    def timed() -> float:
        start = cpu_seconds()
        for _ in range(times):
            run()
        return (cpu_seconds() - start) / times

    return timed


def _agree(answers: dict[str, Tensor]) -> None:
    """All paths attend alike, or the fastest is fast for a wrong reason."""
    first, *rest = answers.values()
    for other in rest:
        error = float((first.float() - other.float()).abs().max())
        if not error <= 0.02 * float(first.float().abs().max()):
            raise TokenPruneError(f"bench fixation: dense paths differ by {error:.1e}")


def _noise(numbers: int, dtype: torch.dtype, g: torch.Generator) -> Tensor:
    """Normal numbers; drawn once and repeated, since drawing billions takes longer than all that is timed."""
    drawn = torch.randn(min(numbers, 2**22 + 2**12 + 1), generator=g).to(dtype)
    out = torch.empty(numbers, dtype=dtype)
    for start in range(0, numbers, max(len(drawn), 1)):
        out[start : start + len(drawn)] = drawn[: numbers - start]
    return out


def free_bytes() -> int:
    """Memory that can be taken, as the system says; unlimited where it does not."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("MemAvailable"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 2 * MOST_BYTES
