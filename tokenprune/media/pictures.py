"""Pictures from paths, arrays or folders, checked before anybody spends time on them.

Whatever comes in leaves as an upright RGB `PIL.Image`; whatever cannot is an `InputError` that names the file.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError

MAX_PIXELS = 64_000_000
"""Largest picture that is decoded (192 MB as RGB). A few kB of PNG can claim a thousand times that."""

# Raster formats only: PIL would hand EPS to Ghostscript, and the rarer plugins are untested with bad input.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg"})
LOAD_CLIP = "`tokenprune.media.load_clip` reads"


@dataclass(frozen=True)
class Picture:
    """A picture that is opened when needed, so that a folder of thousands fits in memory."""

    name: str  # for tables and messages: the file name without its folders
    source: Any  # what `load_image` takes

    def load(self) -> Image.Image:
        """The upright RGB image; raises `InputError` like `load_image`."""
        return load_image(self.source)


def load_image(source: Any, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright RGB image from a path, the bytes of a file, a PIL image or an array.

    source: path; bytes; `PIL.Image.Image`; array or CPU tensor (H, W), (H, W, C) or (C, H, W) with C in {1, 3, 4},
    uint8 or floats in [0, 1]. Transparency is laid over white, 16-bit grey is scaled, EXIF orientation is applied.
    Raises `InputError`, naming the file, for anything else: missing, corrupt, animated, larger than `max_pixels`.
    """
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        _check_path(path, name or str(source))
        return _from_file(path, name or str(source), max_pixels)
    if isinstance(source, bytes):
        return _from_file(io.BytesIO(source), name or "the picture", max_pixels)
    if isinstance(source, Image.Image):
        label = name or getattr(source, "filename", "") or "the picture"
        return upright_rgb(source, label, max_pixels)
    if hasattr(source, "__array__"):
        return _from_array(source, name or "the array", max_pixels)
    raise InputError(
        f"{name or 'the picture'}: a {type(source).__name__} is not a path, a PIL image or an array"
    )


def find_pictures(source: Any) -> list[Picture]:
    """The pictures of a file or folder, a folder's in natural order (2 before 10), without opening any.

    Subfolders, hidden files and files of other types are passed over; a folder without a picture is an `InputError`.
    """
    if not isinstance(source, str | Path):
        return [Picture("picture", source)]
    path = Path(source).expanduser()
    if not path.is_dir():
        _check_path(path, str(source))
        return [Picture(path.name, path)]
    try:
        files = [f for f in path.iterdir() if f.is_file() and not f.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{source}: cannot read this folder ({error.strerror})") from error
    found = sorted((f for f in files if f.suffix.lower() in SUFFIXES), key=lambda f: natural(f.name))
    if not found:
        videos = any(f.suffix.lower() in VIDEO_SUFFIXES for f in files)
        hint = (
            "; `tokenprune.media.find_clips` finds its videos"
            if videos
            else f" ({', '.join(sorted(SUFFIXES))})"
        )
        raise InputError(f"{source}: no picture in this folder{hint}")
    return [Picture(f.name, f) for f in found]


def natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name.lower()) if p]


def _check_path(path: Path, label: str) -> None:
    if not path.exists():
        raise InputError(f"{label}: no such file")
    if path.is_dir():
        raise InputError(f"{label}: is a folder, not a picture")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise InputError(f"{label}: is a video, not a picture; {LOAD_CLIP} it")


def _from_file(file: Path | io.BytesIO, label: str, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Our own limit is checked below, from the header, before a pixel is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                return upright_rgb(image, label, max_pixels)
    except UnidentifiedImageError as error:
        raise InputError(
            f"{label}: not a picture, or one in a format that is not read ({', '.join(FORMATS)})"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{label}: more pixels than the limit of {max_pixels:,}") from error
    except InputError:
        raise
    except (
        Exception
    ) as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, ...
        raise InputError(f"{label}: corrupt or unreadable picture ({error})") from error


def upright_rgb(image: Image.Image, label: str, max_pixels: int) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{label}: {width} x {height} is {width * height:,} pixels, more than the limit of {max_pixels:,}"
        )
    if width * height == 0:
        raise InputError(f"{label}: an empty picture ({width} x {height})")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # what PIL calls a JPEG with previews behind it
        hint = f"{LOAD_CLIP} it" if image.format in ("GIF", "WEBP") else "save the one you want by itself"
        raise InputError(f"{label}: holds {frames} frames or pages, not one picture; {hint}")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(
            f"{label}: samples of mode {image.mode!r} have no fixed white; save it with 8 or 16 bits"
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _from_array(source: Any, label: str, max_pixels: int) -> Image.Image:
    array = np.asarray(source)
    shape = " x ".join(map(str, array.shape))
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(
            f"{label}: shape {shape} is not (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels"
        )
    if array.shape[0] * array.shape[1] > max_pixels:
        raise InputError(f"{label}: {shape} is more than the limit of {max_pixels:,} pixels")
    if np.issubdtype(array.dtype, np.floating):
        # NaN fails the comparison too; values past 1 are usually 0-255 floats, which a clip would turn white.
        if not bool(((array >= 0) & (array <= 1)).all()):
            raise InputError(f"{label}: floats must lie in [0, 1]")
        array = (array * 255 + 0.5).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"{label}: {array.dtype} samples; uint8 or floats in [0, 1] are read")
    if 0 in array.shape:
        raise InputError(f"{label}: an empty picture ({shape})")
    return upright_rgb(Image.fromarray(np.ascontiguousarray(array)), label, max_pixels)
