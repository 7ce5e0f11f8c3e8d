"""A progress bar that appears once something has taken two seconds."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .app import console

PATIENCE = 2.0


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Gives a function to call with (done, total, what); the bar goes to stderr and leaves nothing behind."""
    bar = Progress(
        TextColumn(title),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.description}"),
        console=console(stderr=True),
        transient=True,
        refresh_per_second=2,  # drawing takes time from what is measured
    )
    task = bar.add_task("", total=1)
    over, lock = threading.Event(), threading.Lock()

    def appear() -> None:
        with lock:
            if not over.is_set():
                bar.start()

    # A thread, because loading a model reports nothing until it is done.
    timer = threading.Timer(PATIENCE, appear)
    timer.daemon = True
    timer.start()

    def tick(done: int, total: int, what: str) -> None:
        short = what if len(what) <= 48 else what[:45] + "..."
        bar.update(task, completed=done, total=total, description=escape(short))

    try:
        yield tick
    finally:
        timer.cancel()
        with lock:
            over.set()
        bar.stop()


def hush() -> None:
    """Leave the terminal to us: the libraries' own bars, notes and retries are about loading, not about pruning."""
    import huggingface_hub
    import transformers

    huggingface_hub.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="transformers")
