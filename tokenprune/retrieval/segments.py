"""Files of an index: each holds the tokens, single vectors and names of the pictures of one `add`, for good.

A segment is a safetensors file `ROW-COUNT.safetensors`, written under another name, forced to the disk and then
renamed. So whatever carries such a name is whole, and what was acknowledged cannot be lost by a crash.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import InputError

NAME = re.compile(r"(\d{12})-(\d+)\.safetensors")
PART = ".part"
READERS = 8
"""Segments that are opened at a time: a cold disk answers many questions as fast as one."""


@dataclass(frozen=True)
class Segment:
    """Rows `start` to `start + len(names)` of an index; arrays are mapped, not read."""

    path: Path
    start: int
    names: list[str]
    tokens: np.ndarray  # (n, K, D) float16
    single: np.ndarray  # (n, C) float16
    file: _File

    @property
    def stop(self) -> int:
        return self.start + len(self.names)

    def fetch(self, rows: np.ndarray) -> None:
        """Tell the system that the tokens of these rows are read next; it looks for all of them at once."""
        size = self.tokens[0].nbytes
        for row in rows.tolist():
            self.file.fetch("tokens", row * size, size)


def write_segment(
    folder: Path, start: int, names: Sequence[str], tokens: np.ndarray, single: np.ndarray
) -> Path:
    """Write rows from `start` on and wait until file and name are on the disk. A full disk is an `InputError`."""
    path = folder / f"{start:012d}-{len(names)}.safetensors"
    draft = path.with_name(path.name + PART)
    text = np.frombuffer("\n".join(names).encode(), dtype=np.uint8)
    try:
        save_file({"tokens": tokens, "single": single, "names": text}, str(draft))
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
        _sync_folder(folder)
    except (OSError, SafetensorError) as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error}); what was added before is safe") from error
    return path


def read_segments(folder: Path) -> list[Segment]:
    """The segments in order of their rows, one after the other; drafts and what is merged into others are passed over.

    Raises `InputError` where rows are missing or a file is damaged.
    """
    found: dict[int, tuple[int, Path]] = {}
    for path in folder.iterdir():
        match = NAME.fullmatch(path.name)
        if match:
            start, count = int(match[1]), int(match[2])
            found[start] = max(found.get(start, (0, path)), (count, path))
    wanted: list[tuple[Path, int, int]] = []
    row = 0
    for start in sorted(found):
        count, path = found[start]
        if start + count <= row:  # merged into the one before
            continue
        if start != row:
            raise InputError(f"{folder}: rows {row} to {start} of this index are missing")
        wanted.append((path, start, count))
        row = start + count
    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(lambda one: _open(*one), wanted))


def open_segment(folder: Path, start: int, count: int) -> Segment:
    """The one that was just written."""
    return _open(folder / f"{start:012d}-{count}.safetensors", start, count)


def sweep(folder: Path, segments: Sequence[Segment]) -> None:
    """Delete drafts, and segments that were merged into others."""
    kept = {s.path.name for s in segments}
    for path in folder.iterdir():
        if path.name.endswith(PART) or (NAME.fullmatch(path.name) and path.name not in kept):
            path.unlink(missing_ok=True)


def _open(path: Path, start: int, count: int) -> Segment:
    try:
        with safe_open(str(path), framework="numpy") as file:  # checks the header against the file's length
            text = file.get_tensor("names").tobytes().decode()
        mapped = _File(path)
        tokens, single = mapped.array("tokens"), mapped.array("single")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: is damaged ({error})") from error
    names = text.split("\n")
    if len(names) != count or len(tokens) != count or len(single) != count:
        raise InputError(f"{path}: is damaged (it should hold {count} pictures)")
    mapped.fetch("single", 0, single.nbytes)  # the first search reads all of them
    return Segment(path, start, names, tokens, single, mapped)


class _File:
    """A safetensors file as a read-only map: an 8-byte length, a JSON header, then the data."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length = int.from_bytes(self._map[:8], "little")
        self._header, self._data = json.loads(self._map[8 : 8 + length]), 8 + length

    def array(self, name: str) -> np.ndarray:
        entry = self._header[name]
        if entry["dtype"] != "F16":
            raise ValueError(f"{name} is {entry['dtype']}, not F16")
        shape = tuple(entry["shape"])
        first = self._data + entry["data_offsets"][0]
        return np.frombuffer(self._map, np.float16, int(np.prod(shape)), first).reshape(shape)

    def fetch(self, name: str, offset: int, size: int) -> None:
        """Ask for bytes of a tensor to be read soon, where the system can be asked."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        first = self._data + self._header[name]["data_offsets"][0] + offset
        start = first - first % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, start, first + size - start)


def _sync_folder(folder: Path) -> None:
    """A rename is on the disk once its folder is; Windows has no such call and needs none."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
