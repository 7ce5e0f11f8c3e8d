"""From a reader's frames to a clip: limits, the sampling rule, the size, and what stands in for frames that are gone.

`read` yields a `Head`, then a `Shot` for each frame that could be decoded, then a `Tail`; `Reel` collects them. The
same two run in one process and on both ends of a pipe, and neither end ever holds a frame that was not asked for.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import InputError
from .sampling import sample_indices

MAX_SECONDS = 4 * 3600.0
"""Longest video that is opened: counting its frames reads all of it."""
MAX_CLIP_PIXELS = 768 * 1280 * 720
"""Most pixels that are returned, all frames together (2.1 GB as RGB)."""


@dataclass(frozen=True)
class Ask:
    """What is wanted of a file; plain values only, since it crosses a process boundary."""

    path: str
    label: str  # the path as the user wrote it, for messages
    container: str
    frames: int | None = None
    rate: float | None = None
    indices: tuple[int, ...] | None = None
    max_frames: int = 768
    box: tuple[int, int] | None = None  # width and height that frames are shrunk to fit
    backend: str | None = None
    max_seconds: float = MAX_SECONDS
    max_pixels: int = 64_000_000  # of one frame of the source


@dataclass(frozen=True)
class Found:
    wanted: int
    number: int  # another than the wanted one where that cannot be decoded
    frame: np.ndarray  # (H, W, 3) uint8, upright RGB


class Reader(Protocol):
    """An open file, behind one decoding library. Frame numbers are in the order of display."""

    name: str
    total: int  # frames the file announces or holds
    fps: float
    duration: float  # seconds, from the first frame's beginning to the last one's end
    pixels: int  # of a frame, as the header has it

    def times(self) -> np.ndarray | None:
        """Seconds from the first frame's beginning to each one's; None where they are known to be regular."""
        ...

    def frames(self, wanted: Sequence[int]) -> Iterator[Found]:
        """The wanted frames, whose numbers rise, and what stands in for those that cannot be decoded.

        Where nothing is yielded for a number, the frame yielded before it stands in.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Head:
    count: int  # frames that will be returned
    height: int
    width: int


@dataclass(frozen=True)
class Shot:
    at: int  # its place among the returned frames
    frame: np.ndarray


@dataclass(frozen=True)
class Tail:
    copies: tuple[int, ...]  # for each place, the place whose shot it shows
    indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    fps: float
    duration: float
    total: int
    missing: int
    backend: str


def read(reader: Reader, ask: Ask) -> Iterator[Head | Shot | Tail]:
    """Head, shots and tail of the clip that is asked for; `InputError`, naming the file, for what cannot be."""
    check_source(ask, reader.total, reader.duration, reader.pixels)
    times = reader.times()
    picks = pick(ask, reader.total, reader.fps, reader.duration, times)
    place: dict[int, int] = {}
    for at, number in enumerate(picks):
        place.setdefault(number, at)
    wanted: list[int] = []
    numbers: list[int] = []
    size = None
    for found in reader.frames(sorted(place)):
        if size is None:
            height, width, _ = found.frame.shape
            size = fit(width, height, ask.box)
            check_total(ask.label, len(picks), *size)
            yield Head(len(picks), size[1], size[0])
        wanted.append(found.wanted)
        numbers.append(found.number)
        yield Shot(place[found.wanted], shrink(found.frame, size))
    if not wanted:
        raise InputError(f"{ask.label}: none of its {reader.total} frames could be decoded")
    # For each pick the last frame that came at or before it; before the first that came, that one.
    last = np.searchsorted(wanted, picks, side="right").clip(1) - 1
    shown = [numbers[i] for i in last]
    when = [number / reader.fps if times is None else float(times[number]) for number in shown]
    yield Tail(
        copies=tuple(place[wanted[i]] for i in last),
        indices=tuple(shown),
        timestamps=tuple(when),
        fps=float(reader.fps),
        duration=float(reader.duration),
        total=int(reader.total),
        missing=sum(number != asked for number, asked in zip(shown, picks)),
        backend=reader.name,
    )


def pick(ask: Ask, total: int, fps: float, duration: float, times: np.ndarray | None) -> tuple[int, ...]:
    """The frame numbers to return, in order."""
    if ask.indices is not None:
        wrong = [i for i in ask.indices if not 0 <= i < total]
        if wrong:
            raise InputError(f"{ask.label}: has frames 0 to {total - 1}; there is no frame {wrong[0]}")
        return ask.indices
    picks = sample_indices(total, fps, frames=ask.frames, rate=ask.rate, times=times, duration=duration)
    if len(picks) <= ask.max_frames:
        return picks
    return sample_indices(total, fps, frames=ask.max_frames, times=times, duration=duration)


def check_source(ask: Ask, total: int, duration: float, pixels: int) -> None:
    """`InputError` for a source without frames, or longer or larger than its limits."""
    if total < 1:
        raise InputError(f"{ask.label}: holds no frames")
    if duration > ask.max_seconds:
        raise InputError(
            f"{ask.label}: lasts {duration:,.0f} s, more than max_seconds={ask.max_seconds:,.0f}"
        )
    if pixels > ask.max_pixels:
        raise InputError(
            f"{ask.label}: its frames have {pixels:,} pixels, more than the limit of {ask.max_pixels:,}"
        )


def check_total(label: str, count: int, width: int, height: int) -> None:
    """`InputError` when the frames together would be too many pixels to hand over."""
    if count * width * height > MAX_CLIP_PIXELS:
        raise InputError(
            f"{label}: {count} frames of {width} x {height} are more than {MAX_CLIP_PIXELS:,} pixels together; "
            "ask for fewer frames, or smaller ones with size="
        )


def fit(width: int, height: int, box: tuple[int, int] | None) -> tuple[int, int]:
    """Width and height shrunk to fit the box, the shape kept; never enlarged."""
    if box is None:
        return width, height
    scale = min(1.0, box[0] / width, box[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The frame (H, W, 3) at `size` = (width, height)."""
    if (frame.shape[1], frame.shape[0]) == size:
        return np.ascontiguousarray(frame)
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def own_pages(shape: tuple[int, ...]) -> np.ndarray:
    """An array of bytes in memory pages of its own, which go back to the system with it.

    From the heap, clips of many sizes leave tens of megabytes behind that are free and still resident.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.empty(shape, np.uint8)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # private: a fork gets its own
    return np.frombuffer(pages, np.uint8).reshape(shape)


@dataclass
class Reel:
    """Collects what `read` yields into one array; `buffer` is where the next shot's bytes belong."""

    label: str
    frames: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 3), np.uint8))
    tail: Tail | None = None

    def begin(self, head: Head) -> None:
        check_total(self.label, head.count, head.width, head.height)  # the other end may be in a file's hands
        self.frames = own_pages((head.count, head.height, head.width, 3))

    def buffer(self, at: int) -> memoryview:
        return memoryview(self.frames[at]).cast("B")

    def end(self, tail: Tail) -> None:
        for at, source in enumerate(tail.copies):
            if at != source:
                self.frames[at] = self.frames[source]
        self.tail = tail

    def take(self, part: Any) -> None:
        if isinstance(part, Head):
            self.begin(part)
        elif isinstance(part, Shot):
            self.frames[part.at] = part.frame
        else:
            self.end(part)
