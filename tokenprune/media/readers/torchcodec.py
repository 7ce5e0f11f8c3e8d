"""torchcodec: only where it really imports, which takes FFmpeg's shared libraries and the torch it was built for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torchcodec  # pyright: ignore
from torchcodec.decoders import VideoDecoder  # pyright: ignore

from ...errors import InputError
from ..reading import Ask, Found

# Since 0.16 it imports without the libraries, and fails only when a video is opened.
if getattr(torchcodec, "ffmpeg_major_version", 0) is None:
    raise ImportError("FFmpeg's shared libraries were not found")

PROBES = 17
"""Frames whose times tell whether the rate is constant."""


class TorchcodecReader:
    name = "torchcodec"

    def __init__(self, ask: Ask) -> None:
        if ask.container == "mpeg":  # measured: it misnumbers their frames
            raise InputError(f"{ask.label}: torchcodec is not exact on this container; take backend='pyav'")
        self._decoder = VideoDecoder(ask.path, dimension_order="NHWC", seek_mode="exact")
        about = self._decoder.metadata
        self.total = len(self._decoder)
        if not self.total:
            raise InputError(f"{ask.label}: holds no frames")
        self.pixels = int(about.height or 0) * int(about.width or 0)
        self._first = float(about.begin_stream_seconds or 0.0)
        last = self._decoder.get_frame_at(0) if self.total == 1 else None
        rate = float(about.average_fps or 25.0)
        self.duration = float(about.end_stream_seconds or self.total / rate) - self._first
        header = about.duration_seconds_from_header
        if header and 0 < header - self.duration < 2 / rate:
            self.duration = float(header)  # a last frame without a length of its own
        if self.duration <= 0:
            self.duration = float(last.duration_seconds) if last is not None else self.total / rate
        self.fps = self.total / self.duration
        self._times: np.ndarray | None = None
        if not self._is_regular():
            # No list of the time stamps is public, so the frames are asked one by one.
            stamps = [self._decoder.get_frame_at(i).pts_seconds for i in range(self.total)]
            self._times = np.asarray(stamps, np.float64) - self._first

    def _is_regular(self) -> bool:
        """Whether frames all along the clip appear within half a frame of their place at a constant rate."""
        probes = {i * (self.total - 1) // (PROBES - 1) for i in range(PROBES)}
        try:
            found = [
                abs(self._decoder.get_frame_at(i).pts_seconds - self._first - i / self.fps) for i in probes
            ]
        except RuntimeError:
            return True  # a cut file: what it announces is all there is
        return max(found) < 0.5 / self.fps

    def times(self) -> np.ndarray | None:
        return self._times

    def frames(self, wanted: Sequence[int]) -> Iterator[Found]:
        for number in wanted:
            try:
                frame = self._decoder.get_frame_at(number)
            except (RuntimeError, IndexError):
                continue
            yield Found(number, number, frame.data.numpy())

    def close(self) -> None:
        del self._decoder
