"""PyAV: every platform, current codecs, exact frame numbers; the default.

Frames are numbered by the time stamps of their packets, all of which are read first (nothing is decoded for it): no
header can be trusted to count, and Matroska's does not try. Decoding starts at the last key frame before a wanted one.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import av  # pyright: ignore
import av.logging  # pyright: ignore
import numpy as np
from av.error import FFmpegError  # pyright: ignore
from av.stream import Disposition  # pyright: ignore

from ...errors import InputError
from ..containers import is_cut
from ..reading import Ask, Found

FORMATS = {
    "mp4": "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska": "matroska,webm",
    "avi": "avi",
    "mpeg": "mpeg,mpegvideo",
}
THREADS = 4
NO_MORE = (sys.maxsize, None)  # comes after every frame
VP8_SHOWN = 0x10  # in the first byte of a VP8 frame; the hidden ones are packets of their own


class PyAVReader:
    name = "pyav"

    def __init__(self, ask: Ask) -> None:
        # A log that goes to Python needs the GIL in FFmpeg's threads, for which the closing of a decoder waits with the
        # GIL in its hand. PyAV's own default is no such log, but torchvision switches it on.
        av.logging.set_level(None)
        self._path = ask.path
        self._options = {"protocol_whitelist": "file", "format_whitelist": FORMATS[ask.container]}
        self._limit = ask.max_pixels
        with self._open() as container:
            stream = self._stream(container, ask.label)
            self.pixels = stream.codec_context.width * stream.codec_context.height
            base = float(stream.time_base or 0)
            stamps, keys, end = self._scan(container, stream)
            announced = stream.frames
            tag = _seconds(stream.metadata.get("DURATION"))
            if tag is None and len(container.streams) == 1 and container.duration:
                tag = container.duration / av.time_base
            rate = float(stream.average_rate or 0)
        self._by_order = None in stamps or not base  # no clock: numbered as they come
        if self._by_order:
            stamps, end = list(range(len(stamps))), len(stamps)
            base = 1 / (rate or 25.0)
        order = np.argsort(np.asarray(stamps, np.int64), kind="stable")
        self._stamps = np.asarray(stamps, np.int64)[order]
        self._keys = [] if self._by_order else np.flatnonzero(np.asarray(keys, bool)[order]).tolist()
        self._number = {int(stamp): i for i, stamp in enumerate(self._stamps)}
        readable = len(self._stamps)
        first = int(self._stamps[0]) if readable else 0
        self._times = (self._stamps - first) * base
        self.duration = self._length(end, first, base, rate)
        self.fps = readable / self.duration if readable else 0.0
        if rate and abs(self.fps / rate - 1) < 0.01:
            self.fps = rate  # 25, where milliseconds add up to 25.01
        self.total = readable
        if readable and is_cut(Path(ask.path), ask.container):
            whole = announced if ask.container == "mp4" else 0
            if tag is not None:
                whole = max(whole, round((tag - first * base) * self.fps))
            self._lengthen(whole)

    def _open(self) -> Any:
        return av.open(self._path, options=self._options, metadata_errors="ignore")

    def _stream(self, container: Any, label: str) -> Any:
        """The first video stream that is not a cover picture, ready to decode."""
        found = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not found:
            raise InputError(f"{label}: holds no video")
        stream = found[0]
        if stream.codec_context is None:
            raise InputError(f"{label}: its codec is not known to this version of PyAV")
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(THREADS, os.cpu_count() or 1)
        stream.codec_context.options = {"max_pixels": str(self._limit)}
        return stream

    def _scan(self, container: Any, stream: Any) -> tuple[list[int | None], list[bool], int]:
        """Time stamp and key flag of every packet that becomes a frame, and when the last of them ends."""
        stamps: list[int | None] = []
        keys: list[bool] = []
        end = 0
        vp8 = stream.codec_context.name == "vp8"
        for packet in _packets(container, stream):
            if not packet.size or packet.is_discard or packet.is_corrupt:
                continue
            if vp8 and not memoryview(packet)[0] & VP8_SHOWN:
                continue
            stamps.append(packet.pts)
            keys.append(packet.is_keyframe)
            end = max(end, (packet.pts or 0) + (packet.duration or 0))
        return stamps, keys, end

    def _length(self, end: int, first: int, base: float, rate: float) -> float:
        """Seconds to the end of the last frame, which lasts as long as its packet says, or as a frame does."""
        if not len(self._stamps):
            return 0.0
        length = (end - first) * base
        if length > self._times[-1]:
            return float(length)
        gaps = np.diff(self._times)
        return float(self._times[-1] + (np.median(gaps) if len(gaps) else 1 / (rate or 25.0)))

    def _lengthen(self, whole: int) -> None:
        """Count the frames that a cut file announces and no longer holds."""
        more = max(0, whole - self.total)
        self._times = np.concatenate([self._times, self.duration + np.arange(more) / self.fps])
        self.total += more
        self.duration += more / self.fps

    def times(self) -> np.ndarray:
        return self._times

    def frames(self, wanted: Sequence[int]) -> Iterator[Found]:
        decoder, at, frame = self._decode(0), -1, None
        before, sent = -1, -1  # numbers of the frame before `frame`, and of the last one yielded
        may_seek = bool(self._keys)
        try:
            for number in wanted:
                key = self._key_before(number)
                if may_seek and key > at + 1:
                    decoder.close()
                    decoder = self._decode(key)
                    at, frame = next(decoder, NO_MORE)
                    if at > key:  # the seek went too far, or the key frame is damaged: all of it, then
                        decoder.close()
                        decoder, at, frame, may_seek = self._decode(0), -1, None, False
                while at < number:
                    before, last = at, frame
                    at, frame = next(decoder, NO_MORE)
                if at == number:
                    yield Found(number, at, _upright(frame))
                    sent = at
                elif before >= 0 and before > sent:
                    yield Found(number, before, _upright(last))
                    sent = before
                elif sent < 0 and frame is not None:
                    yield Found(number, at, _upright(frame))
        finally:
            decoder.close()

    def _key_before(self, number: int) -> int:
        at = int(np.searchsorted(self._keys, number, side="right")) - 1
        return self._keys[at] if at >= 0 else 0

    def _decode(self, key: int) -> Generator[tuple[int, Any], None, None]:
        """(number, frame) from a key frame on, without those that are damaged."""
        with self._open() as container:
            stream = self._stream(container, self._path)
            if key > 0:
                container.seek(int(self._stamps[key]), stream=stream, backward=True, any_frame=False)
            for count, (frame, whole) in enumerate(_frames(container, stream)):
                number = count if self._by_order else self._number.get(frame.pts)
                if number is not None and whole:
                    yield number, frame

    def close(self) -> None:
        pass  # every container is open only while it is read


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets up to the end, or to where the file cannot be read on."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError):
            return
        yield packet


def _frames(container: Any, stream: Any) -> Iterator[tuple[Any, bool]]:
    """Every frame that comes out, and whether it is whole: after damage nothing is until the next key frame."""
    whole, flushed = True, False
    for packet in _packets(container, stream):
        if packet.size and packet.is_corrupt:
            whole = False
            continue
        flushed = not packet.size
        try:
            frames = stream.codec_context.decode(packet)
        except FFmpegError:
            whole = False
            continue
        for frame in frames:
            whole = not frame.is_corrupt and (whole or frame.key_frame)
            yield frame, whole
    if not flushed:
        with contextlib.suppress(FFmpegError):
            yield from (
                (frame, whole and not frame.is_corrupt) for frame in stream.codec_context.decode(None)
            )


def _upright(frame: Any) -> np.ndarray:
    """RGB (H, W, 3), turned as the file says it is to be shown."""
    return np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))


def _seconds(tag: str | None) -> float | None:
    """Matroska's own count of a stream's length, "00:00:03.880000000"."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)\0*", tag or "")
    return None if found is None else int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
