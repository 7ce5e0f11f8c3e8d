"""Which methods at which budgets, checked before a model is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ..budget import check_keep
from ..errors import BudgetError, InputError, UnknownNameError, neighbours
from ..methods import Reducer, get_method, list_methods, method_class

METHODS = ("random", "uniform", "pool", "flashvlm")
VIDEO_METHODS = ("random", "uniform", "pool", "evs")
KEEPS = (0.5, 0.25, 0.111, 0.056)
ALWAYS = ("none", "blind")
"""Rows every table has: nothing pruned, and the question without its picture."""


@dataclass(frozen=True)
class Setting:
    """One column of a comparison: a method with the budget it is given."""

    method: str  # as it is written: a name, or `name(hyper=value, ...)`
    keep: float | int

    def reducer(self) -> Reducer:
        """The method, built."""
        name, hyper = parse_method(self.method)
        return get_method(name, keep=self.keep, **hyper)

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


def split_methods(text: str) -> list[str]:
    """`evs, progressive(budget=adaptive, window=8)` -> its two items."""
    return [item.strip() for item in re.findall(r"(?:[^,(]|\([^)]*\))+", text) if item.strip()]


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """`progressive(budget=adaptive, window=8)` -> its name and hyper-parameters; values are read as YAML."""
    found = re.fullmatch(r"\s*([^()\s]+)\s*(?:\((.*)\))?\s*", text)
    try:
        hyper = yaml.safe_load("{" + found[2].replace("=", ": ") + "}") if found and found[2] else {}
    except yaml.YAMLError:
        hyper = None
    if found is None or hyper is None or None in hyper or "keep" in hyper:
        raise InputError(f"{text!r}: a method is written as name, or as name(hyper=value, hyper=value)")
    return found[1], hyper


def check_settings(methods: Sequence[str], keeps: Sequence[float | int]) -> list[Setting]:
    """Every method at every keep, methods in the order given; unknown ones raise with their neighbours.

    An alias is replaced by the method's name. A method may be written with hyper-parameters, see `parse_method`.
    """
    settings: list[Setting] = []
    for text in dict.fromkeys(m.strip() for m in methods if m.strip()):
        name = parse_method(text)[0]
        if name in ALWAYS:
            continue  # they are there anyhow
        try:
            proper = method_class(name).name
        except UnknownNameError:
            near = neighbours(name, [*list_methods(), *ALWAYS])
            raise UnknownNameError(f"no method named {name!r}; {near}") from None
        for keep in keeps:
            setting = Setting(text.replace(name, proper, 1), keep)
            setting.reducer()
            if setting not in settings:
                settings.append(setting)
    if not settings:
        raise InputError(f"no method given; {neighbours('', list_methods())}")
    return settings
