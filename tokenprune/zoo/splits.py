"""What tells training, test and held-out drawings apart: the hash of what is drawn, on any machine the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol, TypeVar

SPLITS = ("train", "test", "held_out")


class Keyed(Protocol):
    """A scene, a page or a clip: a frozen description with the hash of its content."""

    def key(self) -> str: ...


Drawing = TypeVar("Drawing", bound=Keyed)


def check_split(split: str) -> None:
    """ValueError where there is no such split."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")


def digest(text: str) -> str:
    """Sixteen hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_test(drawing: Keyed) -> bool:
    """One in sixteen, by its key, belongs to the test side; training skips it, `test` takes only it."""
    return drawing.key().startswith("0")


def belongs(drawing: Keyed, split: str) -> bool:
    """Whether a suite of `split` may show it; what is held out is another matter, of the question."""
    return split == "held_out" or is_test(drawing) == (split == "test")


def for_training(draw: Callable[[], Drawing]) -> Drawing:
    """The first that `draw` draws and that the test split can never draw."""
    while is_test(drawing := draw()):
        pass
    return drawing
