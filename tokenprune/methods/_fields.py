"""Checks of hyper-parameters that many methods have: each names the field and what it accepts."""

from __future__ import annotations

import numbers
from typing import Any

from ..errors import TokenPruneError


def check_numbers(method: object, **ranges: tuple[float, float]) -> None:
    """Fields that are real numbers in [low, high]; NaN and bools are not."""
    for name, (low, high) in ranges.items():
        value: Any = getattr(method, name)
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= float(value) <= high:
            raise TokenPruneError(f"{name}={value!r}: a number from {low:g} to {high:g}")


def check_ints(method: object, **ranges: tuple[int, int]) -> None:
    """Fields that are ints in [low, high]."""
    for name, (low, high) in ranges.items():
        value: Any = getattr(method, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise TokenPruneError(f"{name}={value!r}: an int from {low} to {high}")


def check_choice(method: object, name: str, *values: str | None) -> None:
    """A field that takes one of a few names (or None)."""
    value: Any = getattr(method, name)
    if not (value is None or isinstance(value, str)) or value not in values:
        raise TokenPruneError(f"{name}={value!r}: {' or '.join(repr(v) for v in values)}")
