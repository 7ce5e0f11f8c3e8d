"""A progress bar that appears once something has taken two seconds."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .app import console

PATIENCE = 2.0


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Gives a function to call with (done, total, what); the bar goes to stderr and leaves nothing behind."""
    start = time.monotonic()
    bar = Progress(
        TextColumn(title),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.description}"),
        console=console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=1)
    shown = False

    def tick(done: int, total: int, what: str) -> None:
        nonlocal shown
        if not shown and time.monotonic() - start > PATIENCE:
            bar.start()
            shown = True
        short = what if len(what) <= 48 else what[:45] + "..."
        bar.update(task, completed=done, total=total, description=short.replace("[", r"\["))

    try:
        yield tick
    finally:
        if shown:
            bar.stop()


def hush() -> None:
    """Leave the terminal to us: transformers' own bars and notes are about loading, not about pruning."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="transformers")
