"""decord 0.6: where nothing else is installed. Unmaintained since 2021, bundles FFmpeg 4 (no AV1), Linux x86-64 only.

Measured: asked for single frames of HEVC or MPEG-1 files it returns others without a word, also by its own
`skip_frames`. Read from the beginning one by one they are right, so that is what is done here, at the price of decoding
all that comes before. It knows only the frames that a cut file still holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import decord  # pyright: ignore
import numpy as np

from ...errors import InputError
from ..reading import Ask, Found

decord.logging.set_level(decord.logging.QUIET)


class DecordReader:
    name = "decord"

    def __init__(self, ask: Ask) -> None:
        self._label = ask.label
        # One thread: its background threads decode ahead and keep what they decoded.
        self._reader = decord.VideoReader(ask.path, num_threads=1)
        self.total = len(self._reader)
        if not self.total:
            raise InputError(f"{ask.label}: holds no frames")
        rate = float(self._reader.get_avg_fps())
        stamps = np.asarray(
            self._reader.get_frame_timestamp(range(self.total)), np.float64
        )  # (T, 2): begin, end
        begin = stamps[:, 0] - stamps[0, 0]
        self._times = None
        self.duration = self.total / rate
        # MPEG program streams give times of minus a billion hours; then only the rate is left.
        if np.isfinite(stamps).all() and (np.diff(begin) > 0).all() and begin[-1] < ask.max_seconds:
            self._times = begin
            last = stamps[-1, 1] - stamps[-1, 0]
            self.duration = float(begin[-1] + (last if last > 0 else 1 / rate))
        self.fps = self.total / self.duration
        if abs(self.fps / rate - 1) < 0.01:
            self.fps = rate
        height, width, _ = self._reader[0].shape
        self._reader.seek(0)
        self.pixels = height * width

    def times(self) -> np.ndarray | None:
        return self._times

    def frames(self, wanted: Sequence[int]) -> Iterator[Found]:
        at, frame = -1, None
        for number in wanted:
            try:
                while at < number:
                    frame = self._reader.next()
                    at += 1
            except (RuntimeError, StopIteration):  # DECORDError, also for a file that ends too early
                if frame is not None:
                    yield Found(number, at, frame.asnumpy())
                return
            assert frame is not None
            yield Found(number, number, frame.asnumpy())

    def close(self) -> None:
        del self._reader
