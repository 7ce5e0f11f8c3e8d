"""The command line: `tokenprune compare | methods | explain | bench`. The only place that prints."""

from .app import app

__all__ = ["app"]
