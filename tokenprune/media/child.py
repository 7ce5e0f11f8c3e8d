"""Decoding in a process of its own: a decoder that hangs, crashes or leaks takes down that process and no more.

One process serves clip after clip, since starting one costs a third of a second, and is replaced after `CLIPS` of
them, after a crash and after a clip that took too long. It is a fresh interpreter, never a fork: forks inherit locks
and CUDA. It needs no `if __name__ == "__main__"` in the user's script, and may be started from a daemonic process.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import errors
from ..errors import InputError
from .reading import Ask, Head, Reel, Tail
from .worker import read_exactly, read_head, write_message

CLIPS = 64
"""Clips after which the process is replaced, so that what a decoder never frees stays bounded."""
START = 120.0
"""Seconds in which the process must have started."""

MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(1 << 17)}
"""For glibc, which else keeps what it freed: frames of many sizes leave holes that no later frame fits."""


class Child:
    """A decoding process, started when first needed. Not for two threads at once."""

    def __init__(self, script: str | Path | None = None, clips: int = CLIPS) -> None:
        self._script = str(script or Path(__file__).with_name("worker.py"))
        self._clips = clips
        self._served = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    def decode(self, ask: Ask, timeout: float) -> Reel:
        """The clip's frames; `InputError` naming the file when it is bad, hangs its decoder or crashes it."""
        if self._process is not None and (self._served >= self._clips or self._process.poll() is not None):
            self.close()
        if self._process is None:
            self._start(ask.backend)
        self._served += 1
        reel = Reel(ask.label)
        self._exchange({**asdict(ask), "timeout": timeout}, timeout, ask.label, reel)
        return reel

    def close(self) -> None:
        """End the process; a later clip starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()

    def _start(self, backend: str | None) -> None:
        # -I: nothing is imported from the working directory, nor because of a variable
        self._process = subprocess.Popen(
            [sys.executable, "-I", self._script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # where FFmpeg tells its troubles
            bufsize=0,
            env={**os.environ, **MALLOC},
        )
        self._served = 0
        paths = [os.path.abspath(path) for path in sys.path]
        self._exchange({"path": paths, "backend": backend}, START, "the decoding process", None)

    def _exchange(self, message: dict[str, Any], timeout: float, label: str, reel: Reel | None) -> None:
        """Send a message and take the replies to it; whatever goes wrong ends the process."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def end_it() -> None:
            late.set()
            process.kill()

        alarm = threading.Timer(timeout, end_it)
        alarm.daemon = True
        alarm.start()
        try:
            write_message(process.stdin, message)  # type: ignore[arg-type]
            refusal = self._take(process.stdout, reel)
        except errors.TokenPruneError:
            self.close()
            raise
        except (EOFError, OSError, LookupError, TypeError, ValueError) as error:
            gone = isinstance(
                error, EOFError | OSError
            )  # else it talks nonsense, which a crash can begin with
            code = _exit_code(process) if gone else None
            self.close()
            if late.is_set():
                raise InputError(f"{label}: not decoded within {timeout:g} s; given up") from error
            raise InputError(
                f"{label}: its decoder died ({_end(code)}); the file is probably corrupt"
            ) from error
        except BaseException:  # Ctrl-C among them: half a reply is still in the pipe
            self.close()
            raise
        finally:
            alarm.cancel()
            alarm.join()
            if late.is_set():
                self.close()
        if refusal is not None:
            raise refusal

    def _take(self, replies: Any, reel: Reel | None) -> errors.TokenPruneError | None:
        """Take replies up to the last of them; an error that the other end found is returned."""
        while True:
            reply, size = read_head(replies)
            kind = reply.pop("kind", None)
            if kind == "Error":
                return _error(reply)
            if reel is None and kind == "Ready":
                return None
            if reel is not None and kind == "Head":
                reel.begin(Head(**reply))
            elif reel is not None and kind == "Shot":
                buffer = reel.buffer(reply["at"])
                if len(buffer) != size:
                    raise EOFError  # not what was announced: no longer to be trusted
                read_exactly(replies, buffer)
            elif reel is not None and kind == "Tail":
                for name in ("copies", "indices", "timestamps"):
                    reply[name] = tuple(reply[name])
                reel.end(Tail(**reply))
                return None
            else:
                raise EOFError


def _error(reply: dict[str, Any]) -> errors.TokenPruneError:
    kind = getattr(errors, str(reply.get("error")), InputError)
    if not (isinstance(kind, type) and issubclass(kind, errors.TokenPruneError)):
        kind = InputError
    return kind(str(reply.get("message")))


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return None


def _end(code: int | None) -> str:
    if code is None:
        return "it stopped answering"
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


_child = Child()
_turn = threading.Lock()


def decode(ask: Ask, timeout: float) -> Reel:
    """The clip by this process's child; threads take turns."""
    with _turn:
        return _child.decode(ask, timeout)


def close() -> None:
    """End the decoding process, if there is one; it starts again when needed."""
    with _turn:
        _child.close()


def _after_fork() -> None:
    """A fork has its parent's pipes: it must not speak through them, and starts a child of its own."""
    global _child, _turn
    _child, _turn = Child(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(close)
