"""Who is answered when: one line a model, one request at a time, and a way out of it at any moment.

Every model has one thread of its own. What it does for one request it ends, or takes back, before the next begins; so
a patch can never meet another request's generation.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..chat import Chat
from ..errors import TokenPruneError

POLL = 0.1
"""Seconds between two looks at the line by a request that waits."""

REMEMBERED = 256
"""Sessions after which those that wait for nothing any more are forgotten."""

Put = Callable[[Any], None]
"""What work hands its news to; raises `Cancelled` once nobody wants them any more."""


class Cancelled(TokenPruneError):
    """Nobody waits for this any more: a newer click, or a page that was closed."""


@dataclass(frozen=True)
class Waiting:
    """News of the line itself: how many are served before this one; 0 while the model is loaded."""

    before: int


class Job:
    """One request. `cancel` may be called from any thread, any number of times."""

    def __init__(self) -> None:
        self._over = threading.Event()

    @property
    def cancelled(self) -> bool:
        return self._over.is_set()

    def cancel(self) -> None:
        self._over.set()

    def check(self) -> None:
        """Raise `Cancelled` when it is."""
        if self.cancelled:
            raise Cancelled("cancelled")


class Desk:
    """One model and the line in front of it. The model is loaded by the first request."""

    def __init__(self, name: str, load: Callable[[], Chat]) -> None:
        self.name, self._load = name, load
        self._chat: Chat | None = None
        self._line: list[Job] = []
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"tokenprune-{name}")

    def before(self, job: Job) -> int:
        """Requests that are served before this one."""
        with self._lock:
            return self._line.index(job) if job in self._line else 0

    @property
    def idle(self) -> bool:
        return not self._line

    def warm(self) -> None:
        """Load the model now; what goes wrong is told to who asks first."""

        def load() -> None:
            with contextlib.suppress(Exception):
                self.chat()

        self._thread.submit(load)

    def close(self) -> None:
        """Take no more work; what is running is cancelled."""
        with self._lock:
            for job in self._line:
                job.cancel()
        self._thread.shutdown(wait=False)

    def serve(self, job: Job, work: Callable[[Chat, Put], None]) -> Iterator[Any]:
        """Do `work` once it is this job's turn; yields `Waiting` and what work puts, and raises what it raised.

        A job that somebody cancels ends with `Cancelled`, wherever it is; one whose iterator is closed is cancelled.
        """
        news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

        def put(item: Any) -> None:
            job.check()
            news.put(("news", item))

        def run() -> None:
            try:
                job.check()
                work(self.chat(), put)
            except Cancelled:
                pass
            except BaseException as error:
                news.put(("error", error))
            finally:
                with self._lock:
                    self._line.remove(job)
                news.put(("end", None))

        with self._lock:  # the line and the thread's own queue have to agree
            self._line.append(job)
            self._thread.submit(run)
        try:
            yield from self._follow(job, news)
        finally:
            job.cancel()

    def _follow(self, job: Job, news: queue.SimpleQueue[tuple[str, Any]]) -> Iterator[Any]:
        told = None
        while not job.cancelled:
            try:
                kind, item = news.get(timeout=POLL)
            except queue.Empty:
                place = self.before(job)
                if place != told and (place or self._chat is None):
                    told = place
                    yield Waiting(place)
                continue
            if kind == "end":
                job.check()
                return
            if kind == "error":
                raise item
            yield item
        raise Cancelled("cancelled")

    def chat(self) -> Chat:
        """The model, loaded; only its own thread may call this."""
        if self._chat is None:
            self._chat = self._load()
        return self._chat


class Sessions:
    """The running job of every open page: a new one cancels the one before."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def start(self, session: str | None) -> Job:
        """A new job, in place of the session's last one; without a session nothing is replaced."""
        job = Job()
        if session is not None:
            with self._lock:
                if len(self._jobs) >= REMEMBERED:
                    self._jobs = {name: own for name, own in self._jobs.items() if not own.cancelled}
                last = self._jobs.get(session)
                self._jobs[session] = job
            if last is not None:
                last.cancel()
        return job

    def stop(self, session: str | None) -> None:
        """Cancel what a session is waiting for."""
        with self._lock:
            job = self._jobs.pop(session or "", None)
        if job is not None:
            job.cancel()
