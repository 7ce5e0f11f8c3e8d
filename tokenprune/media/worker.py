"""The decoding process. Started as a script by `child`, it answers one request after another until its input ends.

Messages both ways are a head of two lengths (JSON, then raw bytes), the JSON and the bytes. It imports this room
without the rest of the package, whose models take seconds to import and hundreds of megabytes to hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import sys
import types
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

HEAD = struct.Struct("<IQ")
GRACE = 10.0
"""Seconds past the time limit after which the process ends itself, should nobody be left to end it."""


def write_message(file: BinaryIO, message: dict[str, Any], data: Any = b"") -> None:
    text = json.dumps(message).encode("ascii")
    data = memoryview(data).cast("B")
    for part in (memoryview(HEAD.pack(len(text), len(data)) + text), data):
        while len(part):
            part = part[file.write(part) or 0 :]


def read_exactly(file: BinaryIO, into: memoryview) -> None:
    """Fill the buffer; `EOFError` when the other end is gone."""
    while len(into):
        got = file.readinto(into)  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        into = into[got:]


def read_head(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The JSON of the next message, and how many raw bytes follow."""
    head = bytearray(HEAD.size)
    read_exactly(file, memoryview(head))
    length, follow = HEAD.unpack(head)
    if length > 1 << 26:
        raise EOFError  # no message of ours
    text = bytearray(length)
    read_exactly(file, memoryview(text))
    return json.loads(text), follow


def answer(ask: Any, send: Callable[..., None]) -> None:
    """Decode one file and send what `reading.read` yields."""
    from tokenprune.media.readers import open_reader
    from tokenprune.media.reading import Shot, read

    reader = open_reader(ask)
    try:
        for part in read(reader, ask):
            if isinstance(part, Shot):
                send({"kind": "Shot", "at": part.at}, part.frame)
            else:
                send({"kind": type(part).__name__, **asdict(part)})
    finally:
        reader.close()


def serve(requests: BinaryIO, replies: BinaryIO, answer: Callable[..., None] = answer) -> None:
    """Answer until the requests end."""
    from tokenprune.errors import TokenPruneError
    from tokenprune.media.reading import Ask

    write_message(replies, {"kind": "Ready"})
    while True:
        try:
            fields, _ = read_head(requests)
        except EOFError:
            return
        limit = fields.pop("timeout")
        for name in ("indices", "box"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        ask = Ask(**fields)
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, limit + GRACE)
        try:
            answer(ask, lambda message, data=b"": write_message(replies, message, data))
        except TokenPruneError as error:
            write_message(replies, {"kind": "Error", "error": type(error).__name__, "message": str(error)})
        except Exception as error:
            text = f"{ask.label}: could not be decoded ({type(error).__name__}: {str(error)[:300]})"
            write_message(replies, {"kind": "Error", "error": "InputError", "message": text})
        finally:
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 0)


def import_decoder(backend: str | None) -> None:
    """Import it before the first clip's time begins: torchcodec takes torch with it. A failure shows at that clip."""
    from tokenprune.errors import TokenPruneError
    from tokenprune.media.readers import reader_class

    with contextlib.suppress(TokenPruneError):
        reader_class(backend)


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output for messages alone: what libraries print goes nowhere."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    return requests, replies


def main(answer: Callable[..., None] = answer) -> None:
    requests, replies = own_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    start, _ = read_head(requests)
    sys.path[:] = start["path"]
    package = types.ModuleType("tokenprune")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["tokenprune"] = package
    import_decoder(start["backend"])
    serve(requests, replies, answer)


if __name__ == "__main__":
    main()
