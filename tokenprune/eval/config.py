"""A run as a YAML file: which model answers which suite under which methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, UnknownNameError, neighbours
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
    home: Path | None = field(default=None, repr=False)  # relative paths start here


def load_config(path: str | Path) -> RunConfig:
    """Read a configuration. Raises `InputError` naming the file; an unknown setting shows its neighbours."""
    path = Path(path)
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot read this configuration ({error})") from error
    if not isinstance(body, dict) or "suite" not in body:
        raise InputError(f"{path}: a configuration is a mapping with at least `suite`")
    known = {f.name for f in fields(RunConfig)} - {"home"}
    for key in body:
        if key not in known:
            raise UnknownNameError(f"{path}: no setting {key!r}; {neighbours(str(key), known)}")
    body.setdefault("name", path.stem)
    return RunConfig(**body, home=path.parent)


BUNDLED = (Path(__file__).resolve().parents[1] / "configs", Path(__file__).resolve().parents[2] / "configs")
"""In a wheel, and in a checkout."""


def find_config(name: str) -> Path:
    """A file by its path, or a bundled configuration by its name. Raises `InputError`."""
    path = Path(name)
    if path.is_file():
        return path
    for home in BUNDLED:
        found = home / "suites" / f"{name}.yaml"
        if found.is_file():
            return found
    there = sorted({f.stem for home in BUNDLED for f in home.glob("suites/*.yaml")})
    raise InputError(f"{name}: no such file, and no bundled configuration (there are: {', '.join(there)})")
