"""The rows of a table: what is done to a model before it answers. Baselines are always among them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..budget import check_keep
from ..errors import InputError
from ..methods import Reducer, get_method, method_class
from ..recipe import load_recipe

NONE, BLIND, RESIZE, FRAMES = "none", "blind", "resize", "frames"
PLAIN = (NONE, BLIND, RESIZE, FRAMES)
"""Rows that need no patch."""
BASELINES = ("random", "uniform", "pool")
SEEDS = 3
"""Draws of `random`; its row is their mean."""


@dataclass(frozen=True)
class Row:
    """One setting every sample is answered under."""

    label: str  # what tables call it; rows that differ in `keep` or `seed` only share it
    keep: float | int | None = (
        None  # None: nothing is kept to a budget (none, blind), or the chain has its own
    )
    methods: tuple[tuple[str, str], ...] = ()  # (name, hyper-parameters as JSON) of a chain; empty: no patch
    seed: int | None = None

    @property
    def key(self) -> str:
        """What its answers are filed under: everything that can change one, and nothing else."""
        chain = " > ".join(name + ("" if hyper == "{}" else hyper) for name, hyper in self.methods)
        parts = [chain or self.label]
        parts += [f"keep={self.keep}"] * (self.keep is not None)
        parts += [f"seed={self.seed}"] * (self.seed is not None)
        return " ".join(parts)

    def reducers(self) -> list[Reducer]:
        """The methods, built; raises like `get_method`."""
        out = []
        for name, text in self.methods:
            hyper = json.loads(text)
            if self.keep is not None:
                hyper["keep"] = self.keep
            if self.seed is not None:
                hyper["seed"] = self.seed
            out.append(get_method(name, **hyper))
        return out


Item = str | Mapping[str, Any]


def plan_rows(
    methods: Sequence[Item],
    keeps: Sequence[float | int],
    seeds: int = SEEDS,
    video: bool = False,
    home: Path | None = None,
) -> list[Row]:
    """Every row of a run: unpruned, blind, the baselines at every keep, then what was asked for.

    methods: names; or mappings `{name: ..., label: ..., keeps: [...], **hyper}`; or `{chain: [...], label: ...}` and
    `{recipe: file, label: ...}`, whose items carry their own keeps. video: the suite is one of clips, which can also be
    shown with fewer frames. home: folder that paths of recipes start from. Raises before anything runs.
    """
    keeps = [check_keep(k) for k in keeps]
    if not keeps:
        raise InputError("no keep given; for instance 0.5, 0.25")
    rows = [Row(NONE), Row(BLIND)]
    for name in BASELINES:
        rows += _of_method(name, name, keeps, {}, seeds)
    rows += [Row(RESIZE, keep) for keep in keeps]
    rows += [Row(FRAMES, keep) for keep in keeps] if video else []
    for item in methods:
        for row in _of_item(item, keeps, seeds, home or Path()):
            if row not in rows:
                rows.append(row)
    for row in rows:
        row.reducers()
    labels: dict[tuple[Any, ...], str] = {}
    for row in rows:
        place = (row.label, row.keep, row.seed)
        if labels.setdefault(place, row.key) != row.key:
            raise InputError(
                f"two rows are called {row.label!r} at keep {row.keep}; give one of them a `label`"
            )
    return rows


def _of_item(item: Item, keeps: Sequence[float | int], seeds: int, home: Path) -> list[Row]:
    if isinstance(item, str):
        if item in PLAIN:
            return []  # they are there anyhow
        name = method_class(item).name
        return _of_method(name, name, keeps, {}, seeds)
    options = dict(item)
    label = options.pop("label", None)
    if "recipe" in options:
        return [_chain(load_recipe(home / options["recipe"]).methods, label)]
    if "chain" in options:
        return [_chain([_link(link) for link in options["chain"]], label)]
    if "name" not in options:
        raise InputError(f"{dict(item)!r}: a method needs a `name`, a `chain` or a `recipe`")
    name = method_class(str(options.pop("name"))).name
    own = [check_keep(k) for k in options.pop("keeps", keeps)]
    return _of_method(label or name, name, own, options, seeds)


def _of_method(
    label: str, name: str, keeps: Sequence[float | int], hyper: Mapping[str, Any], seeds: int
) -> list[Row]:
    drawn = name == "random" and "seed" not in hyper
    chain = ((name, json.dumps(dict(hyper), sort_keys=True)),)
    return [Row(label, keep, chain, seed) for keep in keeps for seed in (range(seeds) if drawn else (None,))]


def _chain(links: Sequence[tuple[str, Mapping[str, Any]]], label: str | None) -> Row:
    chain = tuple((method_class(name).name, json.dumps(dict(hyper), sort_keys=True)) for name, hyper in links)
    return Row(label or " > ".join(name for name, _ in chain), None, chain)


def _link(item: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(item, str):
        return item, {}
    if isinstance(item, Mapping) and isinstance(item.get("name"), str):
        return item["name"], {k: v for k, v in item.items() if k != "name"}
    raise InputError(f"{item!r}: each link of a chain is a name, or a mapping with a `name`")
