"""Pictures, a page and clips to begin with: the bundled scenes, and what the zoo draws."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import zoo
from ..chat import DEFAULT, WATCHES
from ..compare.examples import BUNDLED, bundled_examples
from ..media import load_image

SCENES, SEED = 3, 1
CLIP_KINDS = ("direction", "change")


@dataclass(frozen=True)
class Example:
    """One thing to ask about. `still` is what stands for it in a row of thumbnails."""

    label: str
    kind: str  # "picture" | "clip"
    file: Path
    still: Path
    question: str
    model: str  # the embedded model that was made for it


def make_examples(folder: Path, models: Sequence[str]) -> list[Example]:
    """Write the examples into `folder`; pages and clips only where a model that reads them is among `models`.

    Without the `video` extra there is nothing to write a clip with, and none is there.
    """
    out = _scenes(folder)
    if WATCHES in models and WATCHES in zoo.list_models():
        out += _pages(folder)
        with contextlib.suppress(ImportError):
            out += _clips(folder)
    return out


def _scenes(folder: Path) -> list[Example]:
    found: dict[str, Example] = {}
    for entry in bundled_examples():
        if entry.picture.name not in found and len(found) < SCENES:
            path = folder / entry.picture.name
            load_image(BUNDLED / entry.picture.name).save(path)
            label = path.stem.replace("-", " ")
            found[entry.picture.name] = Example(label, "picture", path, path, entry.question, DEFAULT)
    return list(found.values())


def _pages(folder: Path) -> list[Example]:
    from ..zoo import documents

    out = []
    for sample in documents.suite("test", n=3, seed=SEED):
        if sample.kind in ("page", "value"):
            path = folder / f"page-{len(out) + 1}.png"
            sample.image.save(path)
            out.append(Example(f"page {len(out) + 1}", "picture", path, path, sample.question, WATCHES))
    return out


def _clips(folder: Path) -> list[Example]:
    from ..zoo import clips

    av = importlib.import_module("av")
    out = []
    for sample in clips.suite("test", n=len(clips.KINDS), seed=SEED):
        if sample.kind in CLIP_KINDS:
            path, still = folder / f"clip-{sample.kind}.mp4", folder / f"clip-{sample.kind}.png"
            _write(av, path, sample.frames, sample.fps)
            sample.frames[len(sample.frames) // 2].save(still)
            out.append(Example(f"clip {len(out) + 1}", "clip", path, still, sample.question, WATCHES))
    return out


def _write(av: Any, path: Path, frames: Any, fps: float) -> None:
    """`frames`, pictures of one size, as an H.264 file that every browser plays, with as little loss as it allows."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=round(fps), options={"crf": "4", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].size[::-1], "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_image(frame)))
        file.mux(stream.encode())
