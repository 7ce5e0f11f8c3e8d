"""A clip that a listing or a benchmark names, read only when it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..media import Clip, load_clip

FRAMES = 16
"""Of a clip in a listing that says neither `frames` nor `fps`."""


@dataclass(frozen=True)
class Recording:
    """A clip of a listing, decoded when it is needed; `sampling` is what `load_clip` takes."""

    name: str
    source: Path
    sampling: Mapping[str, float]

    def load(self) -> Clip:
        return load_clip(self.source, **self.sampling)  # type: ignore[arg-type]
