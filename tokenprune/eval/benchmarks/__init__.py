"""Public benchmarks: where their rows are, what is asked of them, and how answers are scored, twice.

Every benchmark is a file here with two scorers as plain functions: `lmms`, which gives what lmms-eval 0.7 gives, and
`strict`, which mends what is wrong with that. Both are `(output, answers, facts=None) -> score in [0, 1]`; where a
score is no mean over samples, `lmms_totals` and `strict_totals` are `(outputs, answers, facts) -> (rows) -> {name:
score}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registry import get_benchmark, get_scorer, is_benchmark, list_benchmarks

if TYPE_CHECKING:
    from pathlib import Path

    from ..suite import Suite
    from .build import Checked

__all__ = [
    "check_benchmark",
    "get_benchmark",
    "get_scorer",
    "is_benchmark",
    "list_benchmarks",
    "load_benchmark",
]


def load_benchmark(name: str, home: Path | None = None, **options: Any) -> Suite:
    from .build import load_benchmark

    return load_benchmark(name, home, **options)


def check_benchmark(name: str, home: Path | None = None, **options: Any) -> Checked:
    from .build import check_benchmark

    return check_benchmark(name, home, **options)
