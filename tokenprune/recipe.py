"""Recipes: a method chain with its hyper-parameters for a model, as YAML."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError


@dataclass
class Recipe:
    """What `patch_model(model, recipe=...)` needs, plus free-form `notes` (curves, sources, versions)."""

    model: str
    methods: list[tuple[str, dict[str, Any]]]
    notes: dict[str, Any] = field(default_factory=dict)

    def to_yaml(self) -> str:
        """The file's text."""
        body = {
            "model": self.model,
            "methods": [{"name": name, **_plain(values)} for name, values in self.methods],
            **({"notes": self.notes} if self.notes else {}),
        }
        return yaml.safe_dump(body, sort_keys=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the recipe and return its path."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.to_yaml(), encoding="utf-8")
        return target


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe; `yaml.safe_load` only. Raises `InputError` naming the file and what is wrong with it."""
    try:
        body = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot read this recipe ({error})") from error
    items = body.get("methods") if isinstance(body, dict) else None
    if not isinstance(items, list) or not items:
        raise InputError(
            f"{path}: a recipe needs a list `methods`, each with a `name` and its hyper-parameters"
        )
    methods = []
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise InputError(f"{path}: each entry of `methods` is a mapping with a `name`, not {item!r}")
        methods.append((item["name"], {k: v for k, v in item.items() if k != "name"}))
    return Recipe(str(body.get("model", "")), methods, body.get("notes") or {})


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, (tuple, set, frozenset)) else v for k, v in values.items()}
