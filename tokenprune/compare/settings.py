"""Which methods at which budgets, checked before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..budget import check_keep
from ..errors import BudgetError, InputError, UnknownNameError, neighbours
from ..methods import get_method, list_methods, method_class

METHODS = ("random", "uniform", "pool", "flashvlm")
VIDEO_METHODS = ("random", "uniform", "pool", "evs")
KEEPS = (0.5, 0.25, 0.111, 0.056)
ALWAYS = ("none", "blind")
"""Rows every table has: nothing pruned, and the question without its picture."""


@dataclass(frozen=True)
class Setting:
    """One column of a comparison: a method with the budget it is given."""

    method: str
    keep: float | int

    @property
    def label(self) -> str:
        """`keep` for people: 11.1% or 64 tokens."""
        return keep_label(self.keep)


def keep_label(keep: float | int) -> str:
    return f"{keep} token{'s' * (keep != 1)}" if isinstance(keep, int) else f"{100 * keep:.3g}%"


def parse_keeps(text: str) -> list[float | int]:
    """`0.5,25%,64` -> [0.5, 0.25, 64]: shares with a point or per cent sign, counts without. Checked."""
    keeps: list[float | int] = []
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        try:
            if item.endswith("%"):
                value: float | int = float(item[:-1]) / 100
            else:
                value = int(item) if item.lstrip("+-").isdecimal() else float(item)
        except ValueError:
            value = math.nan
        try:
            keep = check_keep(value)
        except BudgetError as error:
            raise BudgetError(
                f"keep={item}: a share in (0, 1] such as 0.25 or 25%, or a whole number of tokens such as 64"
            ) from error
        if keep not in keeps:
            keeps.append(keep)
    if not keeps:
        raise InputError("no keep given; for instance 0.5,0.25")
    return keeps


def check_settings(methods: Sequence[str], keeps: Sequence[float | int]) -> list[Setting]:
    """Every method at every keep, methods in the order given; unknown ones raise with their neighbours.

    An alias is replaced by the method's name.
    """
    settings: list[Setting] = []
    for name in dict.fromkeys(m.strip() for m in methods if m.strip()):
        if name in ALWAYS:
            continue  # they are there anyhow
        try:
            proper = method_class(name).name
        except UnknownNameError:
            near = neighbours(name, [*list_methods(), *ALWAYS])
            raise UnknownNameError(f"no method named {name!r}; {near}") from None
        for keep in keeps:
            get_method(proper, keep=keep)
            if Setting(proper, keep) not in settings:
                settings.append(Setting(proper, keep))
    if not settings:
        raise InputError(f"no method given; {neighbours('', list_methods())}")
    return settings
