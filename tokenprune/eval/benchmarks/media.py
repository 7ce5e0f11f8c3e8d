"""The pictures of rows, and the clips that rows name."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import InputError
from ...media import VIDEO_SUFFIXES, load_image

CLIP_SUFFIXES = (*sorted(VIDEO_SUFFIXES), ".gif")


@dataclass(frozen=True)
class RowPicture:
    """The picture of a row, read and decoded when it is needed."""

    name: str
    rows: Any = field(repr=False, compare=False)  # datasets.Dataset with encoded pictures
    number: int
    column: str
    folder: Path | None = field(repr=False, compare=False)

    def load(self) -> Image.Image:
        """The upright RGB image. Raises `InputError` naming it."""
        return open_picture(self.rows[self.number][self.column], self.folder, self.name)


def open_picture(value: Any, folder: Path | None, name: str) -> Image.Image:
    """A picture from what a row holds: encoded bytes, or a path relative to `folder`."""
    data = value.get("bytes") if isinstance(value, Mapping) else None
    if data:
        return load_image(data, name=name)
    path = value.get("path") if isinstance(value, Mapping) else value
    if isinstance(path, str):
        return load_image(path if folder is None or Path(path).is_absolute() else folder / path, name=name)
    return load_image(value, name=name)


def picture_key(value: Any) -> str:
    """What tells a picture from others: twelve hex digits of its bytes, or its path."""
    data = value.get("bytes") if isinstance(value, Mapping) else None
    if data:
        return hashlib.sha256(data).hexdigest()[:12]
    return str(value.get("path") if isinstance(value, Mapping) else value)


def picture_name(value: Any, fallback: str) -> str:
    """Its file's name where the row says it."""
    path = value.get("path") if isinstance(value, Mapping) else value if isinstance(value, str) else None
    return Path(path).name if path else fallback


class ClipFolder:
    """A folder of clips, at any depth, found by the names that rows give, whatever their suffix there and here."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"media {folder}: no such folder")
        self.folder = folder
        self._found: dict[str, list[Path]] | None = None

    def find(self, name: str, under: str = "") -> Path:
        """The file, or folder of frames, of a clip; where there is none the path at which it was looked for.

        under: the subfolder to look in first. `InputError` where several files at other places have the name.
        """
        for base in (self.folder / under, self.folder):
            for path in (base / name, *(base / f"{name}{suffix}" for suffix in CLIP_SUFFIXES)):
                if path.exists():
                    return path
        index, wanted = self._index(), Path(name)
        found = index.get(wanted.name) or index.get(wanted.stem) or []
        if len(found) > 1:
            places = " and ".join(p.relative_to(self.folder).as_posix() for p in found[:2])
            raise InputError(
                f"media {self.folder.name}: {name} is {places}; keep the clips of one benchmark in it"
            )
        return found[0] if found else self.folder / under / name

    def _index(self) -> dict[str, list[Path]]:
        """File name, and file name without suffix -> where it is. One walk for all clips."""
        if self._found is None:
            self._found = defaultdict(list)
            for place, _, files in os.walk(self.folder):
                for file in sorted(files):
                    path = Path(place, file)
                    if path.suffix.lower() in CLIP_SUFFIXES:
                        for key in (path.name, path.stem):
                            self._found[key].append(path)
        return self._found
