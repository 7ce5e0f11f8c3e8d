"""The command line: `tokenprune COMMAND`. The only place that prints."""

from . import bench, calibrate, compare, demo, eval, explain, methods  # each adds its command to `app`
from .app import app

__all__ = ["app", "bench", "calibrate", "compare", "demo", "eval", "explain", "methods"]
