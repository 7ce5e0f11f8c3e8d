"""Pictures and clips, changed alike: smaller, grey, or with fewer frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from ..chat import Medium
from ..media import Clip, load_clip


def size_of(medium: Medium) -> tuple[int, int]:
    """(width, height) in pixels."""
    return medium.size if isinstance(medium, Image.Image) else medium.frames.shape[2:0:-1]


def resized(medium: Medium, size: tuple[int, int]) -> Medium:
    """Of that (width, height); a clip frame by frame."""
    if isinstance(medium, Image.Image):
        return medium.resize(size, Image.Resampling.BICUBIC)
    frames = [picture.resize(size, Image.Resampling.BICUBIC) for picture in medium.pictures()]
    return replace(medium, frames=np.stack([np.asarray(frame) for frame in frames]))


def scaled(medium: Medium, scale: float) -> Medium:
    """`scale` times as wide and high, at least one pixel."""
    width, height = size_of(medium)
    return resized(medium, (max(1, round(width * scale)), max(1, round(height * scale))))


def grey(medium: Medium) -> Medium:
    """Of the same size and length, with nothing to see."""
    if isinstance(medium, Image.Image):
        return Image.new("RGB", medium.size, (128, 128, 128))
    return replace(medium, frames=np.full_like(medium.frames, 128))


def fewer(clip: Clip, frames: int) -> Clip:
    """`frames` of a clip's frames, evenly spread as clips are always sampled, at their full resolution."""
    return load_clip(clip, frames=frames)
