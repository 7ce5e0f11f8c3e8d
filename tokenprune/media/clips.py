"""Clips from video files, animations, folders of frames or memory, sampled by one rule and checked like pictures.

from tokenprune.media import load_clip
clip = load_clip("street.mkv", frames=8)                 # or fps=2.0
processor(text=..., videos=[clip.frames], video_metadata=[clip.metadata()], do_sample_frames=False)
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from . import child
from .containers import container_of
from .pictures import MAX_PIXELS, SUFFIXES, VIDEO_SUFFIXES, find_pictures, load_image, natural
from .readers import ENVIRONMENT, check_backend, open_reader
from .reading import MAX_SECONDS, Ask, Reel, check_source, check_total, fit, pick, read, shrink
from .sampling import check_count, check_rate

CLIP_SUFFIXES = VIDEO_SUFFIXES | {".gif"}
STILLS_FPS = 1.0
"""Frames per second of a folder or list of pictures that comes without a rate: what frames are mostly saved at."""


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of one size, in order, and where in their source they were."""

    frames: np.ndarray  # (T, H, W, 3) uint8, RGB
    timestamps: tuple[float, ...]  # seconds from the source's first frame, of the frames really returned
    fps: float  # of the source, on average
    duration: float  # seconds, of the source
    indices: tuple[int, ...]  # frame numbers in the source, of the frames really returned
    total: int  # frames in the source
    name: str = "clip"  # file name without folders
    backend: str = ""  # "pyav" | "torchcodec" | "decord" | "pillow" | "folder" | "array"
    missing: int = 0  # frames that another stands in for, because the file was truncated or damaged

    def __post_init__(self) -> None:
        shape, count = self.frames.shape, len(self.frames)
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise InputError(f"{self.name}: frames are (T, H, W, 3) uint8, not {shape} {self.frames.dtype}")
        if not count == len(self.timestamps) == len(self.indices):
            raise InputError(f"{self.name}: {count} frames need as many timestamps and indices")

    def pictures(self) -> list[Image.Image]:
        """The frames as PIL images."""
        return [Image.fromarray(frame) for frame in self.frames]

    def metadata(self) -> dict[str, Any]:
        """What transformers calls `VideoMetadata`, for `video_metadata=` of a processor with `do_sample_frames=False`.

        Processors take a frame's time to be `frames_indices / fps`. At a variable frame rate frame numbers would give
        them wrong times, so there the indices are the nearest ticks of a regular clock; else they are `indices`.
        """
        last = max(self.total - 1, 0)
        return {
            "total_num_frames": self.total,
            "fps": self.fps,
            "width": self.frames.shape[2],
            "height": self.frames.shape[1],
            "duration": self.duration,
            "video_backend": self.backend,
            "frames_indices": [min(round(time * self.fps), last) for time in self.timestamps],
        }

    @classmethod
    def of_frames(cls, frames: Any, fps: float, name: str = "clip") -> Clip:
        """A clip of all of `frames`: an array or CPU tensor (T, H, W, 3) or (T, 3, H, W), or a list of equal pictures.

        Pictures are whatever `load_image` takes. Raises `InputError` when one cannot be read or differs in size.
        """
        return _of_stills(
            frames,
            check_rate("fps", fps),
            Ask("", name, "", max_frames=_length(frames), max_seconds=math.inf),
            name,
            "array",
        )


@dataclass(frozen=True)
class ClipSource:
    """A clip that is decoded when needed."""

    name: str  # for tables and messages: the file or folder name without those above it
    source: Any  # what `load_clip` takes

    def load(self, **options: Any) -> Clip:
        """`load_clip` with its options."""
        return load_clip(self.source, **options)


def load_clip(
    source: Any,
    *,
    frames: int | None = None,
    fps: float | None = None,
    indices: Sequence[int] | None = None,
    max_frames: int = 768,
    size: int | tuple[int, int] | None = None,
    backend: str | None = None,
    timeout: float | None = 120.0,
    max_seconds: float = MAX_SECONDS,
    max_pixels: int = MAX_PIXELS,
    source_fps: float | None = None,
) -> Clip:
    """Frames of a video, by `sample_indices`, as RGB and upright, with their times.

    source: path of an mp4, mov, mkv, webm, avi, mpg, GIF or animated WebP; a folder of pictures, in natural order; an
        array (T, H, W, 3) or list of pictures; a `Clip`, of which fewer frames are wanted.
    frames, fps, indices: how many frames, or how many a second, or which; at most one of them. `frames` above what
        there is gives all; `fps` gives at least one and, like neither, at most `max_frames`, over the whole clip.
    size: width and height that frames are shrunk to fit, or one number for both; never enlarged, the shape kept.
    backend: "pyav", "torchcodec" or "decord"; else the environment's TOKENPRUNE_VIDEO_BACKEND; else the first there is.
    timeout: seconds to decode a file in, by a process of its own; None decodes in this one, without a limit.
    max_seconds, max_pixels: limits on the source's length and on one of its frames.
    source_fps: rate of a folder, array or list, which have none of their own; 1.0 when None.

    A truncated file gives the frames it would have given, the last good one repeated in place of those that are lost;
    `missing` counts them. Raises `InputError`, naming the file, when it is missing, not a video, corrupt, without a
    frame, beyond a limit, too slow to decode, or fatal to its decoder; `MissingExtraError` without any decoder.
    """
    if isinstance(source, str | Path):
        path, label = Path(source).expanduser(), str(source)
        name = path.name or label
    else:
        path, label = None, getattr(source, "name", "clip") if isinstance(source, Clip) else "clip"
        name = label
    ask = Ask(
        path="" if path is None else os.fspath(path.absolute()),
        label=label,
        container="",
        frames=None if frames is None else check_count("frames", frames),
        rate=None if fps is None else check_rate("fps", fps),
        indices=None if indices is None else _indices(indices),
        max_frames=check_count("max_frames", max_frames),
        box=_box(size),
        backend=_backend(backend),
        max_seconds=check_rate("max_seconds", max_seconds),
        max_pixels=check_count("max_pixels", max_pixels),
    )
    if sum(x is not None for x in (frames, fps, indices)) > 1:
        raise InputError("give one of frames, fps and indices")
    for what, count in (("frames", ask.frames or 0), ("indices", len(ask.indices or ()))):
        if count > max_frames:
            raise InputError(f"{what}: {count} are more than max_frames={max_frames}")
    rate = STILLS_FPS if source_fps is None else check_rate("source_fps", source_fps)
    limit = None if timeout is None else check_rate("timeout", timeout)
    if isinstance(source, Clip):
        return _of_clip(source, ask)
    if path is None:
        return _of_stills(source, rate, ask, name, "array")
    if path.is_dir():
        stills = [picture.source for picture in find_pictures(path)]
        return _of_stills(stills, rate, ask, path.resolve().name, "folder")
    return _of_file(path, ask, limit, name)


def find_clips(source: Any) -> list[ClipSource]:
    """The clips of a file or folder, a folder's in natural order, without opening any.

    A folder with videos (or GIFs) gives those; one with pictures alone is itself a clip. Subfolders, hidden files and
    files of other types are passed over; a folder with neither is an `InputError`.
    """
    if not isinstance(source, str | Path):
        return [ClipSource(getattr(source, "name", "clip") if isinstance(source, Clip) else "clip", source)]
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(f"{source}: no such file")
    if not path.is_dir():
        return [ClipSource(path.name, path)]
    try:
        files = [f for f in path.iterdir() if f.is_file() and not f.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{source}: cannot read this folder ({error.strerror})") from error
    found = sorted((f for f in files if f.suffix.lower() in CLIP_SUFFIXES), key=lambda f: natural(f.name))
    if found:
        return [ClipSource(f.name, f) for f in found]
    if any(f.suffix.lower() in SUFFIXES for f in files):
        return [ClipSource(path.resolve().name, path)]
    raise InputError(
        f"{source}: no video in this folder ({', '.join(sorted(CLIP_SUFFIXES))}), and no picture to be a frame"
    )


def _of_file(path: Path, ask: Ask, timeout: float | None, name: str) -> Clip:
    if not path.exists():
        raise InputError(f"{ask.label}: no such file")
    if path.suffix.lower() in SUFFIXES - {".gif", ".webp"}:
        raise InputError(f"{ask.label}: is a picture, not a video; `load_image` reads it")
    ask = replace(ask, container=container_of(path, ask.label))
    reel = _here(ask) if timeout is None else child.decode(ask, timeout)
    tail = reel.tail
    assert tail is not None
    return Clip(
        reel.frames,
        tail.timestamps,
        tail.fps,
        tail.duration,
        tail.indices,
        tail.total,
        name,
        tail.backend,
        tail.missing,
    )


def _here(ask: Ask) -> Reel:
    """Decode in this process."""
    reader, reel = open_reader(ask), Reel(ask.label)
    try:
        for part in read(reader, ask):
            reel.take(part)
    finally:
        reader.close()
    return reel


def _of_clip(clip: Clip, ask: Ask) -> Clip:
    """Fewer frames of a clip, smaller ones, or both. `indices` count its own frames here, not the source's."""
    count = len(clip.frames)
    times = np.asarray(clip.timestamps) - clip.timestamps[0]
    length = max(clip.duration - clip.timestamps[0], float(times[-1]) + 1 / clip.fps)
    places = pick(ask, count, count / length, length, times)
    size = fit(clip.frames.shape[2], clip.frames.shape[1], ask.box)
    return Clip(
        np.stack([shrink(clip.frames[i], size) for i in places]),
        tuple(clip.timestamps[i] for i in places),
        clip.fps,
        clip.duration,
        tuple(clip.indices[i] for i in places),
        clip.total,
        clip.name,
        clip.backend,
        clip.missing,
    )


def _of_stills(stills: Any, fps: float, ask: Ask, name: str, backend: str) -> Clip:
    """A clip of pictures at a constant rate; only those that are sampled are opened."""
    total = _length(stills)
    check_source(ask, total, total / fps, 0)
    indices = pick(ask, total, fps, total / fps, None)
    out, size, first = None, None, (0, 0)
    for at, number in enumerate(indices):
        still = stills[number]
        label = str(still) if isinstance(still, str | Path) else f"{ask.label}, frame {number}"
        frame = _array(still, label, ask.max_pixels)
        if out is None or size is None:
            first = frame.shape[:2]
            size = fit(frame.shape[1], frame.shape[0], ask.box)
            check_total(ask.label, len(indices), *size)
            out = np.empty((len(indices), size[1], size[0], 3), np.uint8)
        elif frame.shape[:2] != first:
            shapes = " and ".join(f"{shape[1]} x {shape[0]}" for shape in (frame.shape, first))
            raise InputError(f"{label}: frames of one clip are of one size, not {shapes}")
        out[at] = shrink(frame, size)
    assert out is not None
    times = tuple(number / fps for number in indices)
    return Clip(out, times, fps, total / fps, tuple(indices), total, name, backend)


def _array(still: Any, label: str, max_pixels: int) -> np.ndarray:
    """A picture as (H, W, 3) uint8; an array that is one already is not copied."""
    plain = (
        isinstance(still, np.ndarray) and still.dtype == np.uint8 and still.ndim == 3 and still.shape[2] == 3
    )
    if plain and 0 < still.shape[0] * still.shape[1] <= max_pixels:
        return still
    return np.asarray(load_image(still, name=label, max_pixels=max_pixels))


def _length(stills: Any) -> int:
    if isinstance(stills, Image.Image) or not (hasattr(stills, "__len__") and hasattr(stills, "__getitem__")):
        raise InputError(
            f"clip: a {type(stills).__name__} is not a path, an array (T, H, W, 3), a list or a Clip"
        )
    if getattr(stills, "ndim", 4) != 4:
        raise InputError(f"clip: an array of shape {tuple(stills.shape)} is not (T, H, W, 3) or (T, 3, H, W)")
    if len(stills) < 1:
        raise InputError("clip: holds no frames")
    return len(stills)


def _box(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = size if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2:
        raise InputError(f"size is one number or (width, height), not {size!r}")
    return check_count("size", pair[0]), check_count("size", pair[1])


def _indices(indices: Any) -> tuple[int, ...]:
    try:
        found = tuple(int(i) for i in indices)
        whole = all(i == j and not isinstance(j, bool) for i, j in zip(found, indices))
    except (TypeError, ValueError) as error:
        raise InputError(f"indices are frame numbers, not {indices!r}") from error
    if not found or not whole:
        raise InputError(f"indices are one frame number or more, not {indices!r}")
    return found


def _backend(backend: str | None) -> str | None:
    if backend is not None:
        return check_backend(backend)
    return check_backend(os.environ.get(ENVIRONMENT) or None, ENVIRONMENT)
