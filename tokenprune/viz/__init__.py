"""Drawings of a report: what was kept, dropped and merged. Knows nothing of models; PIL and numpy only."""

from .overlay import overlay
from .sheet import Cell, SheetRow, contact_sheet, titled

__all__ = ["Cell", "SheetRow", "contact_sheet", "overlay", "titled"]
