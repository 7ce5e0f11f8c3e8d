"""Which frames of a video are looked at: one rule, whatever decodes them.

The clip is cut into n equal stretches of time and the frame on screen at the beginning of each is taken. At a
constant frame rate that is frame floor(i * total / n), i = 0..n-1, which is also what transformers 5 does by default
(`default_sample_indices_fn`): a processor that samples by itself and a clip sampled here show a model the same frames.
The other rule in use, n points from the first frame to the last inclusive, gives different frames; it is not offered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError

CLOCK = 1e-3
"""Seconds. Matroska and WebM keep time in milliseconds, so a frame may claim to begin that much late."""


def sample_times(
    total: int,
    fps: float,
    *,
    frames: int | None = None,
    rate: float | None = None,
    duration: float | None = None,
) -> tuple[float, ...]:
    """Seconds from the first frame at which a clip is looked at: i * duration / n for i = 0..n-1.

    total: frames in the source; fps: their mean rate; duration: seconds, `total / fps` when None.
    frames: n, at most `total`. rate: n = max(1, floor(duration * rate)), at most `total`, so never nothing. Neither:
    n = total. Raises `InputError` for both at once, and for anything but counts and finite rates above zero.
    """
    n, length = _count(total, fps, frames, rate, duration)
    return tuple(i * length / n for i in range(n))


def sample_indices(
    total: int,
    fps: float,
    *,
    frames: int | None = None,
    rate: float | None = None,
    times: Sequence[float] | np.ndarray | None = None,
    duration: float | None = None,
) -> tuple[int, ...]:
    """The frame numbers on screen at `sample_times`: floor(i * total / n) at a constant rate.

    times: seconds, `total` of them, increasing: when each frame appears. Where they stray from a constant rate by half
    a frame or more, the frame taken is the last one that has appeared, so a long frame can be taken twice and a short
    one not at all. n = total takes every frame once all the same. Other arguments and errors as in `sample_times`.
    """
    n, length = _count(total, fps, frames, rate, duration)
    if times is None or n == total or is_regular(times, length):
        return tuple(i * total // n for i in range(n))
    targets = np.arange(n) * (length / n) + CLOCK
    shown = np.searchsorted(np.asarray(times, np.float64), targets, side="right") - 1
    return tuple(int(i) for i in shown.clip(0, total - 1))


def is_regular(times: Sequence[float] | np.ndarray, duration: float) -> bool:
    """Whether every frame appears less than half a frame from its place at a constant rate."""
    times = np.asarray(times, np.float64)
    step = duration / len(times)
    return bool((np.abs(times - np.arange(len(times)) * step) < step / 2).all())


def check_rate(name: str, value: Any) -> float:
    """`value` as a float; `InputError` naming the argument unless it is a finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InputError(f"{name} is a number above 0, not {value!r}")
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is a number above 0, not {value}")
    return float(value)


def check_count(name: str, value: Any) -> int:
    """`value` as an int; `InputError` naming the argument unless it is a whole number above zero."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} is a whole number above 0, not {value!r}")
    return int(value)


def _count(
    total: int, fps: float, frames: int | None, rate: float | None, duration: float | None
) -> tuple[int, float]:
    total, fps = check_count("total", total), check_rate("fps", fps)
    length = total / fps if duration is None else check_rate("duration", duration)
    if frames is not None and rate is not None:
        raise InputError("give a number of frames or a rate, not both")
    if frames is not None:
        return min(check_count("frames", frames), total), length
    if rate is not None:
        # A whole number of frames must not be lost to rounding: 2.9999999999999996 is three.
        return min(max(1, math.floor(length * check_rate("rate", rate) + 1e-6)), total), length
    return total, length
