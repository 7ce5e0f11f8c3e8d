"""The libraries that decode, and which of them is used.

PyAV comes first: it is on every platform and exact on every file of the tests. torchcodec is next where it can really
be imported, decord last, since it is silently wrong on some codecs unless read from the beginning (see its file).
"""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import InputError, MissingExtraError
from ..reading import Ask, Reader

#: Backend -> module, class, and what to install. In the order in which they are tried.
BACKENDS = {
    "pyav": ("pyav", "PyAVReader", "av"),
    "torchcodec": ("torchcodec", "TorchcodecReader", "torchcodec"),
    "decord": ("decord", "DecordReader", "decord"),
}
ENVIRONMENT = "TOKENPRUNE_VIDEO_BACKEND"


def check_backend(name: str | None, where: str = "backend") -> str | None:
    """The name, where it is one; `InputError` that lists them otherwise."""
    if name is not None and name not in BACKENDS:
        raise InputError(f"{where}={name!r} is not a video backend; there are {', '.join(BACKENDS)}")
    return name


def reader_class(backend: str | None) -> Any:
    """The class behind a backend, or behind the first one that can be imported; `MissingExtraError` without one."""
    for name in [backend] if backend else list(BACKENDS):
        module, kind, package = BACKENDS[name]
        try:
            return getattr(importlib.import_module(f".{module}", __name__), kind)
        except Exception as error:  # torchcodec fails with whatever its shared library failed with
            if backend == "torchcodec":
                reason = str(error).strip().splitlines() or [type(error).__name__]
                raise MissingExtraError(
                    f"torchcodec cannot be used here ({reason[0]}); it needs FFmpeg's shared libraries. "
                    "PyAV brings its own: `pip install 'tokenprune-vlm[video]'`"
                ) from error
            if backend:
                raise MissingExtraError.of(package, "video") from error
    raise MissingExtraError.of("A video decoder (PyAV)", "video")


def open_reader(ask: Ask) -> Reader:
    """The file, open; `InputError` naming it when it cannot be."""
    if ask.container in ("gif", "webp"):
        from .pillow import PillowReader as kind
    else:
        kind = reader_class(ask.backend)
    try:
        return kind(ask)
    except InputError:
        raise
    except Exception as error:  # every library has its own
        raise InputError(f"{ask.label}: corrupt, cut short or not a video ({_short(error)})") from error


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
