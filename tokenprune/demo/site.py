"""What one running demo has: models, limits, examples, run folders, and who is waiting for what."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from ..chat import Chat
from .desk import Job, Put, Sessions, Waiting
from .examples import Example
from .live import said_of
from .runs import Runs
from .shelf import Shelf
from .uploads import Limits

Work = Callable[[Chat, Put, Job], None]
TOGETHER = 24
"""Requests that wait or run at a time before Gradio's own queue holds further ones back."""


@dataclass
class Site:
    """Shared by all visitors; nothing in here belongs to one of them but their running jobs."""

    shelf: Shelf
    limits: Limits = field(default_factory=Limits)
    runs: Runs = field(default_factory=lambda: Runs(None))
    examples: Sequence[Example] = ()
    sessions: Sessions = field(default_factory=Sessions)

    def serve(self, request: gr.Request | None, model: str, work: Work) -> Iterator[Any]:
        """The news of `work` on a model, in place of what this page was waiting for; raises like `Desk.serve`."""
        desk = self.shelf.desk(model)
        job = self.sessions.start(session_of(request))
        yield from desk.serve(job, lambda chat, put: work(chat, put, job))


def session_of(request: gr.Request | None) -> str | None:
    """The page's own id: one for every open tab."""
    return getattr(request, "session_hash", None)


def status(text: str, kind: str = "") -> str:
    """The line that says what is going on; read out by screen readers."""
    role = "alert" if kind == "bad" else "status"
    return f'<p class="tp-status {kind}" role="{role}">{html.escape(text)}</p>'


def waiting(news: Waiting, model: str) -> str:
    """The line of a request that is not served yet."""
    if news.before == 0:
        return status(f"loading {model} …", "busy")
    return status(f"{news.before} before you in the line for {model} …", "busy")


def failure(error: BaseException) -> tuple[str, gr.Error]:
    """A status line and the message to raise for what went wrong."""
    said = said_of(error)
    return status(said, "bad"), gr.Error(html.escape(said), print_exception=False)
