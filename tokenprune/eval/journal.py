"""The journal of a run: what was answered, written so that no crash can take it away.

One JSONL a rank, and every rank reads them all. The first line says what the run is; every later line is one answer or
one failure. A batch is appended in one write and forced to the disk before the next one starts. A torn last line, all
that a crash can leave behind, is cut off before anything is appended.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

SCHEMA = "tokenprune.journal/1"
SAMPLES = "samples.jsonl"
Record = dict[str, Any]


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Sixteen hex digits of everything that can change an answer."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Journal:
    """One rank's file in a run folder, open for appending. A context manager."""

    def __init__(self, folder: Path, facts: Mapping[str, Any], *, rank: int = 0, force: bool = False) -> None:
        """Open or start the journal.

        facts: what the run is, as plain data; a journal with other facts is refused, naming the first that differ.
        force: go on all the same; the manifest then says so.
        """
        self.folder, self.rank = folder, rank
        self.path = folder / f"journal-{rank}.jsonl"
        mine = json.loads(json.dumps(facts, default=str))
        for other in journals(folder):
            theirs = read_manifest(other)
            if theirs is not None and theirs.get("facts") != mine and not force:
                raise InputError(_differs(folder, theirs.get("facts") or {}, mine))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fresh = _cut_torn_line(self.path) == 0
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 closed by `close`
        except OSError as error:
            raise InputError(f"{folder}: cannot write the journal here ({error.strerror})") from error
        if fresh:
            self._write([{"schema": SCHEMA, "fingerprint": fingerprint(mine), "facts": mine}])

    def append(self, records: Sequence[Record]) -> None:
        """Add records and wait until they are on the disk. A full disk is an `InputError`; nothing earlier is lost."""
        if records:
            self._write(records)

    def _write(self, records: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in records).encode()
        start = self._file.tell()
        try:
            done = 0
            while done < len(text):
                done += self._file.write(text[done:]) or 0
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(
                OSError
            ):  # whole lines only; where this fails too, the next start does it
                os.truncate(self.path, start)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                message = (
                    "no space left on the disk; what was written before is safe: free some and run it again"
                )
            else:
                message = f"cannot be written ({error.strerror}); run it again to go on from here"
            raise InputError(f"{self.path}: {message}") from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def journals(folder: Path) -> list[Path]:
    """The journals of every rank of a run."""
    return sorted(folder.glob("journal-*.jsonl"))


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The first line of a journal; None when it is empty or torn."""
    first = next(_lines(path), None)
    return first if first is not None and first.get("schema") == SCHEMA else None


class Records:
    """What the journals of all ranks say: (row key, sample id) -> its last answer, or its last failure where it was
    never answered. Other ranks may be writing; `update` reads on from the last whole line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[tuple[str, str], Record] = {}
        self._read: dict[Path, int] = {}
        self.update()

    def update(self) -> list[Record]:
        """The records that came since, in every journal."""
        new: list[Record] = []
        for path in journals(self.folder):
            start = self._read.get(path, 0)
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size < start:  # a failed write was taken back
                    start = 0
                file.seek(start)
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self._read[path] = start + whole
            new += [entry for entry in _entries(data[:whole].split(b"\n")) if "row" in entry]
        for record in new:
            place = (record["row"], record["id"])
            if "error" not in record or "error" in self.found.get(place, {"error": ""}):
                self.found[place] = record
        return new


def read_records(folder: Path) -> dict[tuple[str, str], Record]:
    """What `Records` finds in the journals as they are now."""
    return Records(folder).found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of every whole line."""
    with open(path, "rb") as file:
        yield from _entries(line for line in file if line.endswith(b"\n"))


def _entries(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """What is not JSON is passed over, its sample counts as not answered."""
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def _cut_torn_line(path: Path) -> int:
    """Cut off what stands after the last line end; returns the length that is left."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return whole


def _differs(folder: Path, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    names = [k for k in sorted({*theirs, *mine}) if theirs.get(k) != mine.get(k)]
    shown = "; ".join(f"{k}: {_short(theirs.get(k))} there, {_short(mine.get(k))} now" for k in names[:3])
    return (
        f"{folder}: holds another run ({shown}). Give another --out, or --force to go on in it nevertheless"
    )


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def write_samples(folder: Path, samples: Sequence[Record]) -> None:
    """Questions and right answers beside the journal, so that a run can be scored again without its suite."""
    text = "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples)
    write_file(folder / SAMPLES, text)


def read_samples(folder: Path) -> list[Record]:
    """What `write_samples` wrote. Raises `InputError` when this is no run folder."""
    path = folder / SAMPLES
    if not path.is_file():
        raise InputError(f"{folder}: holds no {SAMPLES}, so it is no folder of a run")
    return list(_lines(path))


def write_file(path: Path, text: str) -> None:
    """Write a whole file or leave the old one: never half of it. A full disk is an `InputError`."""
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")  # another rank may be writing the same file
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
