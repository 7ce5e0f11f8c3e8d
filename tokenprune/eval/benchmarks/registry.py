"""The benchmarks by name: every file of this room that has `BENCHMARKS`."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from ...errors import TokenPruneError, UnknownNameError, neighbours
from ..metrics import get_metric, list_metrics
from .base import Benchmark
from .scoring import Scorer

SCORERS = ("lmms", "strict")


@functools.cache
def _benchmarks() -> dict[str, Benchmark]:
    found: dict[str, Benchmark] = {}
    room = __name__.rpartition(".")[0]
    for module in sorted(m.name for m in pkgutil.iter_modules(importlib.import_module(room).__path__)):
        for benchmark in getattr(importlib.import_module(f"{room}.{module}"), "BENCHMARKS", ()):
            for name in (benchmark.name, *benchmark.aliases):
                if name in found:
                    raise TokenPruneError(f"two benchmarks are called {name!r}")
                found[name] = benchmark
    return found


def list_benchmarks() -> list[str]:
    """Their names, sorted, without aliases."""
    return sorted({benchmark.name for benchmark in _benchmarks().values()})


def is_benchmark(name: str) -> bool:
    return name in _benchmarks()


def get_benchmark(name: str) -> Benchmark:
    """By name or alias; `UnknownNameError` lists its neighbours."""
    found = _benchmarks()
    if name not in found:
        raise UnknownNameError(f"no benchmark is named {name!r}; {neighbours(name, found)}")
    return found[name]


def get_scorer(name: str) -> Scorer:
    """A benchmark's scorer, `pope.lmms` or `pope.strict`, or a metric by its name."""
    benchmark, dot, which = name.rpartition(".")
    if not dot:
        if is_benchmark(name):
            known = [f"{name}.{each}" for each in SCORERS]
            raise UnknownNameError(f"benchmark {name!r} has two scorers: {' and '.join(known)}")
        metric = get_metric(name)
        return Scorer(lambda output, answers, facts: metric(output, answers))
    if which not in SCORERS or not is_benchmark(benchmark):
        known = [*list_metrics(), *(f"{each}.{which}" for each in list_benchmarks() for which in SCORERS)]
        raise UnknownNameError(f"no scorer is named {name!r}; {neighbours(name, known)}")
    return getattr(get_benchmark(benchmark), which)
