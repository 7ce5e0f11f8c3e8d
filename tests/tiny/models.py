"""`FAMILIES`: every tiny model family by name. See `base.Family` for what one offers."""

from __future__ import annotations

from . import anyres, gemma, llava, qwen, tiled, videollama
from .base import Family, Media, dropped_from, fixed_mask

MODULES = (llava, qwen, gemma, anyres, tiled, videollama)
FAMILIES: dict[str, Family] = {family.name: family for module in MODULES for family in module.FAMILIES}

__all__ = ["FAMILIES", "Family", "Media", "dropped_from", "fixed_mask"]
