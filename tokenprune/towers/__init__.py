"""Merging inside vision towers: a tower's own blocks get faster. One small file for each library's towers."""

from .patch import TowerHandle, patch_tower
from .report import TowerReport

__all__ = ["TowerHandle", "TowerReport", "patch_tower"]
