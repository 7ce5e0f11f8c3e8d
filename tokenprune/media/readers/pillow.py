"""Animated GIF and WebP by Pillow, which composes the frames. Every one has its own length, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from ...errors import InputError
from ..pictures import upright_rgb
from ..reading import Ask, Found

MAX_FRAMES = 20_000
"""Most frames of an animation: each is decoded to learn how long it lasts."""
SHORTEST, USUAL = 0.02, 0.1
"""Seconds. Lengths below the first, zero among them, are shown for the second by every browser, and so here."""


class PillowReader:
    name = "pillow"

    def __init__(self, ask: Ask) -> None:
        self._label = ask.label
        self._limit = ask.max_pixels
        self._image = Image.open(ask.path, formats=("GIF", "WEBP"))
        width, height = self._image.size
        self.pixels = width * height
        if self.pixels > ask.max_pixels:
            raise InputError(
                f"{ask.label}: {width} x {height} is more than the limit of {ask.max_pixels:,} pixels"
            )
        announced = getattr(self._image, "n_frames", 1)
        if announced > MAX_FRAMES:
            raise InputError(f"{ask.label}: {announced:,} frames, more than the limit of {MAX_FRAMES:,}")
        lengths: list[float] = []
        for number in range(announced):
            if not self._seek(number):
                break
            length = self._image.info.get("duration", 0) / 1000
            lengths.append(length if length >= SHORTEST else USUAL)
        if not lengths:
            raise InputError(f"{ask.label}: corrupt, not one frame can be decoded")
        self._whole = len(lengths)
        lengths += [float(np.median(lengths))] * (announced - len(lengths))
        ends = np.cumsum(lengths)
        self.total = announced
        self.duration = float(ends[-1])
        self.fps = self.total / self.duration
        self._times = ends - np.asarray(lengths)

    def _seek(self, number: int) -> bool:
        """Go to a frame and decode it, where it is whole."""
        try:
            self._image.seek(number)
            self._image.load()
        except (EOFError, OSError, SyntaxError, ValueError, IndexError):
            return False
        return True

    def times(self) -> np.ndarray:
        return self._times

    def frames(self, wanted: Sequence[int]) -> Iterator[Found]:
        for number in wanted:
            at = min(number, self._whole - 1)
            if not self._seek(at):
                return
            yield Found(number, at, np.asarray(upright_rgb(self._image.copy(), self._label, self._limit)))
            if at < number:
                return

    def close(self) -> None:
        self._image.close()
