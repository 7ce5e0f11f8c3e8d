"""What visitors send: checked by size, type, pixels and duration before anything else looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..chat import Medium
from ..errors import InputError
from ..media import Clip, load_clip, load_image

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """The most that is taken of a visitor."""

    mib: float = 50  # of a file
    pixels: int = 40_000_000  # of a picture, and of one frame of a clip
    seconds: float = 300  # of a clip
    side: int = 1280  # frames of a clip are shrunk to fit this
    frames: int = 64  # looked at of a clip
    question: int = 2000  # characters
    timeout: float = 60.0  # seconds to decode a clip in


def take_picture(path: str | None, limits: Limits) -> Image.Image:
    """The picture of an upload; `InputError` names the file and what is wrong with it."""
    if not path:
        raise InputError("no picture yet: upload one, take one with the camera, or pick an example")
    name = _sized(path, limits)
    return load_image(path, name=name, max_pixels=limits.pixels)


def take_clip(path: str | None, frames: int, limits: Limits) -> Clip:
    """`frames` frames of an uploaded clip, spread evenly; `InputError` as for pictures."""
    if not path:
        raise InputError("no clip yet: upload one, record one with the camera, or pick an example")
    name = _sized(path, limits)
    if not 1 <= frames <= limits.frames:
        raise InputError(f"frames={frames}: 1 to {limits.frames}")
    try:
        return load_clip(
            path,
            frames=int(frames),
            size=limits.side,
            timeout=limits.timeout,
            max_seconds=limits.seconds,
            max_pixels=limits.pixels,
        )
    except InputError as error:  # the upload folder's own path stays out of the page
        raise InputError(str(error).replace(path, name)) from error


def take(kind: str, picture: str | None, clip: str | None, frames: int, limits: Limits) -> Medium:
    """The picture or the clip, whichever `kind` says is asked about."""
    return take_clip(clip, frames, limits) if kind == "clip" else take_picture(picture, limits)


def take_question(text: str | None, otherwise: str, limits: Limits) -> str:
    """A question that is not empty and not a book."""
    asked = (text or "").strip() or otherwise
    if len(asked) > limits.question:
        raise InputError(f"the question has {len(asked):,} characters; at most {limits.question:,}")
    return asked


def _sized(path: str, limits: Limits) -> str:
    name = Path(path).name
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise InputError(f"{name}: the upload is gone; send it again") from error
    if size == 0:
        raise InputError(f"{name}: an empty file")
    if size > limits.mib * MIB:
        raise InputError(f"{name}: {size / MIB:.1f} MiB; at most {limits.mib:g} are taken")
    return name
