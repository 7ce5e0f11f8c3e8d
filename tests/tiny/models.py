"""`FAMILIES`: every tiny model family that this transformers has, by its model type. See `base.Family`."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from .base import Family, Media, dropped_from, fixed_mask

_HERE = Path(__file__).parent
_TOOLS = {"base", "labels", "models", "processors", "reference", "rows"}
_MODULES = [
    importlib.import_module(f"{__package__}.{module.name}")
    for module in pkgutil.iter_modules([str(_HERE)])
    if module.name not in _TOOLS and not module.name.startswith("test_")
]
FAMILIES: dict[str, Family] = {
    family.name: family
    for module in _MODULES
    for family in getattr(module, "FAMILIES", ())
    if family.name in CONFIG_MAPPING_NAMES
}

__all__ = ["FAMILIES", "Family", "Media", "dropped_from", "fixed_mask"]
