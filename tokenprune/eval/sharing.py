"""What the rows of one batch have in common is done once: the processor's work and the vision tower's."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn

from ..chat import Chat, Medium

ENCODERS = ("get_image_features", "get_video_features")
TOWER_FIELDS = ("saliency", "vision_features", "vision_keys")


class Shared:
    """Inputs and encoded images of the latest batch, held while `held` is open.

    A method that looks into the tower (`saliency`, ...) needs it to run, so `reuse` is set row by row.
    """

    def __init__(self, chat: Chat, composite: nn.Module) -> None:
        self.chat, self.composite = chat, composite
        self.reuse = False
        self._open = False
        self._inputs: tuple[list[Any], dict[str, Any]] | None = None
        self._encoded: dict[str, tuple[list[Any], Any]] = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, batches of the very same pictures share what can be shared."""
        here = self.composite.__dict__
        undo: list[Callable[[], Any]] = []
        for name in ENCODERS:
            if hasattr(self.composite, name):
                undo.append(functools.partial(here.pop, name, None))
                here[name] = self._once(name, getattr(self.composite, name))
        self._open = True
        try:
            yield
        finally:
            self._open = self.reuse = False
            self._inputs, self._encoded = None, {}
            for restore in undo:
                restore()

    def inputs(self, media: Sequence[Medium], questions: Sequence[str]) -> dict[str, Any]:
        """`Chat.inputs`, or what it gave for the same pictures and questions just before."""
        asked = [*media, *questions]
        if self._inputs is None or not _same(self._inputs[0], asked):
            inputs = self.chat.inputs(list(media), list(questions))
            if not self._open:
                return inputs
            self._inputs = (asked, inputs)
        return dict(self._inputs[1])

    def allow(self, needs: frozenset[str]) -> None:
        """Reuse encoded images for a row whose methods need these fields, if they can do without the tower."""
        self.reuse = self._open and not any(need.split("@")[0] in TOWER_FIELDS for need in needs)

    def _once(self, name: str, encode: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(encode)  # generate() reads the signature
        def run(*args: Any, **kwargs: Any) -> Any:
            if not self.reuse:
                return encode(*args, **kwargs)
            asked = [*args, *(part for pair in sorted(kwargs.items()) for part in pair)]
            before = self._encoded.get(name)
            if before is not None and _same(before[0], asked):
                return before[1]
            output = encode(*args, **kwargs)
            self._encoded[name] = (asked, output)
            return output

        return run


def _same(a: list[Any], b: list[Any]) -> bool:
    """The very same objects; strings and numbers by value."""
    return len(a) == len(b) and all(
        x is y or (isinstance(x, (str, int, float)) and type(x) is type(y) and x == y) for x, y in zip(a, b)
    )
