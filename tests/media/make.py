"""Clips whose frames say their own number: eight vertical bars, white for a 1, the lowest bit on the left."""

from __future__ import annotations

import importlib.util
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT, BITS, COUNT = 160, 96, 8, 97
MILLISECONDS = Fraction(1, 1000)
QUICK = {
    "libx264": {"bf": "3", "preset": "veryfast"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx": {
        "deadline": "good",
        "cpu-used": "5",
        "auto-alt-ref": "1",
        "lag-in-frames": "16",
    },  # hidden frames
}


def usable(backend: str) -> bool:
    if backend != "torchcodec":
        return importlib.util.find_spec({"pyav": "av"}.get(backend, backend)) is not None
    try:  # installed does not mean usable
        import torchcodec
    except Exception:
        return False
    return getattr(torchcodec, "ffmpeg_major_version", 0) is not None


BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(not usable(name), reason=f"{name} cannot be used here"))
    for name in ("pyav", "torchcodec", "decord")
]


def draw(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    row = np.repeat(np.array([235 if bit else 20 for bit in bits], np.uint8), width // BITS)
    return np.broadcast_to(row[None, :, None], (height, len(row), 3)).copy()


def number_of(frame: np.ndarray) -> int:
    height, width, _ = frame.shape
    bar = width / BITS
    middle = frame[height // 4 : 3 * height // 4]
    means = [middle[:, round((b + 0.25) * bar) : round((b + 0.75) * bar)].mean() for b in range(BITS)]
    return sum(int(mean > 127) << b for b, mean in enumerate(means))


def numbers(clip) -> list[int]:
    return [number_of(frame) for frame in clip.frames]


def write(
    path: Path,
    codec: str = "libx264",
    *,
    count: int = COUNT,
    rate: int = 25,
    times: list[int] | None = None,
    key: int = 12,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    options: dict[str, str] | None = None,
    **container: str,
) -> Path:
    """A video of `count` frames, at a constant rate or at `times` in milliseconds, a key frame every `key`."""
    av = pytest.importorskip("av")
    if codec not in av.codec.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    with av.open(str(path), "w", options=container) as file:
        stream = file.add_stream(codec, rate=rate, options=QUICK.get(codec, {}) | (options or {}))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = key
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = MILLISECONDS
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(draw(number, *size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], MILLISECONDS
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def uneven(count: int = COUNT) -> list[int]:
    """Times in milliseconds that no constant rate explains: slow, then fast, then slow."""
    steps = [200] * (count // 4) + [20] * (count // 2) + [100] * count
    return np.cumsum([0, *steps])[:count].tolist()


def cut(path: Path, share: float) -> Path:
    """The first part of a file, as another file."""
    data = path.read_bytes()
    short = path.with_name(f"cut_{path.name}")
    short.write_bytes(data[: int(len(data) * share)])
    return short


def turn(path: Path) -> Path:
    """The same mp4 to be shown a quarter turn clockwise, as a phone held upright writes it."""
    data = bytearray(path.read_bytes())
    matrix = data.find(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    turned = path.with_name(f"turned_{path.name}")
    turned.write_bytes(data)
    return turned


def write_animation(path: Path, count: int = 20, milliseconds: int | list[int] = 40) -> Path:
    frames = [Image.fromarray(draw(number)) for number in range(count)]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, **options)
    return path
