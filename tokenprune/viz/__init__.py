"""Drawings of a report: what was kept, dropped, merged and looked at. Knows nothing of models; PIL and numpy only."""

from .cells import kept_by_step
from .gaze import GazePage, View, save_gif
from .looks import Look, lit, looks_of
from .overlay import overlay
from .sheet import Cell, SheetRow, contact_sheet, titled
from .stills import Gazing, gaze_strip
from .strip import Kept, Reel, clip_sheet, steps_of

__all__ = [
    "Cell",
    "GazePage",
    "Gazing",
    "Kept",
    "Look",
    "Reel",
    "SheetRow",
    "View",
    "clip_sheet",
    "contact_sheet",
    "gaze_strip",
    "kept_by_step",
    "lit",
    "looks_of",
    "overlay",
    "save_gif",
    "steps_of",
    "titled",
]
