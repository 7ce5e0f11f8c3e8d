"""Runs as a YAML file: which model answers which suite under which methods; several in one file share what they can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, UnknownNameError, neighbours
from .benchmarks import is_benchmark
from .rows import SEEDS, Item


@dataclass
class RunConfig:
    """The fields of a configuration file, and what `evaluate` takes."""

    suite: str | dict[str, Any]
    model: str = "tiny-llava"
    methods: Sequence[Item] = ("flashvlm",)
    keeps: Sequence[float | int] = (0.5, 0.25, 0.111, 0.056)
    batch: int = 8
    seeds: int = SEEDS  # draws of `random`
    limit: int | None = None  # samples, whole groups
    max_new_tokens: int | None = None  # None: the suite's
    metric: str | None = None  # None: the suite's
    margin: float = 0.01  # of the non-inferiority verdict, in score
    efficiency: int = 4  # samples timed in the separate pass; 0: none
    coverage: int = 0  # samples on which the distance to the nearest token left is taken; 0: none
    threads: int | None = None
    device: str = "cpu"
    dtype: str = "auto"
    device_map: str | dict[str, Any] | None = None  # such as auto: over all GPUs of a process, instead of `device`
    name: str = ""
    published: dict[str, Any] | None = None  # what a paper gives for rows of this run; see `published_table`
    home: Path | None = field(default=None, repr=False)  # relative paths start here


@dataclass
class Plan:
    """A configuration: its runs, and what a paper publishes of all of them together."""

    name: str
    runs: list[RunConfig]
    retained: dict[str, Any] | None = None  # mean share of the unpruned score in percent, as `published_table`


def load_config(path: str | Path) -> RunConfig:
    """The run of a configuration that has one; see `load_plan`."""
    plan = load_plan(path)
    if len(plan.runs) > 1:
        raise InputError(f"{path}: holds {len(plan.runs)} runs ({', '.join(r.name for r in plan.runs)}), not one")
    return plan.runs[0]


def load_plan(path: str | Path) -> Plan:
    """Read a configuration: the settings of one run, or `runs`, a list of settings that differ from the rest.

    Raises `InputError` naming the file; an unknown setting shows its neighbours.
    """
    path = Path(path)
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot read this configuration ({error})") from error
    entries = body.pop("runs", [{}]) if isinstance(body, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        raise InputError(f"{path}: a configuration is a mapping with at least `suite`, and `runs` is a list of such")
    retained = body.pop("retained", None)
    runs = [_run(path, {**body, **entry}, alone=len(entries) == 1) for entry in entries]
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two runs are called {twice!r}; give one of them a `name`")
    if retained is not None:
        retained = published_table(path, retained, str(body.get("source", "")), str(body.get("model", "")))
    return Plan(path.stem, runs, retained)


def _run(path: Path, body: dict[str, Any], alone: bool) -> RunConfig:
    if "suite" not in body:
        raise InputError(f"{path}: a configuration is a mapping with at least `suite`")
    known = {f.name for f in fields(RunConfig)} - {"home"} | {"source"}
    for key in body:
        if key not in known:
            raise UnknownNameError(f"{path}: no setting {key!r}; {neighbours(str(key), known)}")
    suite = body["suite"]
    asked = str(suite.get("name", "")) if isinstance(suite, dict) else str(suite)
    body.setdefault("name", path.stem if alone else Path(asked).stem)
    source = str(body.pop("source", ""))
    if body.get("published") is not None:
        model = str(body.get("model", RunConfig.model))
        body["published"] = published_table(path, body["published"], source, model)
    return RunConfig(**body, home=path.parent)


def published_table(path: Path, values: Any, source: str, model: str) -> dict[str, Any]:
    """`{row: value}` or `{row: {keep: value}}` of a file as plain data, with where it was published and of what model.

    Values are in the unit that the paper's table has them in. A `total` among the rows names what they are where that
    is not the benchmark's headline, such as `perception + cognition` of MME.
    """
    rows: list[dict[str, Any]] = []
    values = dict(values) if isinstance(values, dict) else {}
    total = str(values.pop("total", ""))
    for label, found in values.items():
        each = found if isinstance(found, dict) else {None: found}
        rows += [{"label": str(label), "keep": keep, "value": value} for keep, value in each.items()]
    if not rows or not all(isinstance(row["value"], (int, float)) for row in rows):
        raise InputError(f"{path}: published values are numbers by row, or by row and keep")
    return {"source": source, "model": model, "total": total, "rows": rows}


def with_data(run: RunConfig, folder: Path) -> RunConfig:
    """The run with its benchmark's rows from `folder`/NAME in place of the hub, where that is there."""
    suite = {"name": run.suite} if isinstance(run.suite, str) else dict(run.suite)
    root = folder / str(suite.get("name", ""))
    if not is_benchmark(str(suite.get("name", ""))) or not root.exists():
        return run
    return replace(run, suite={**suite, "root": str(root.resolve())})


BUNDLED = (Path(__file__).resolve().parents[1] / "configs", Path(__file__).resolve().parents[2] / "configs")
"""In a wheel, and in a checkout."""


def find_config(name: str) -> Path:
    """A file by its path, or a bundled configuration by its name, such as `scenes` or `paper/flashvlm`.

    Raises `InputError`.
    """
    path = Path(name)
    if path.is_file():
        return path
    for home in BUNDLED:
        for found in (home / "suites" / f"{name}.yaml", home / f"{name}.yaml"):
            if found.is_file():
                return found
    there = sorted({f.stem for home in BUNDLED for f in home.glob("suites/*.yaml")})
    there += sorted({f"paper/{f.stem}" for home in BUNDLED for f in home.glob("paper/*.yaml")})
    raise InputError(f"{name}: no such file, and no bundled configuration (there are: {', '.join(there)})")
