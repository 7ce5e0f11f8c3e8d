"""The models a demo has: those it was started with and, where it may, a few more by their Hugging Face id."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import zoo
from ..chat import Chat, check_model, load_chat
from ..errors import InputError, UnknownNameError, neighbours
from .desk import Desk

EXTRA = 1
"""Models beyond the named ones that are held at a time; asking for another lets the last one go."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Loading:
    """How models are loaded; remote code only ever from the models named at the start."""

    device: str = "cpu"
    dtype: str = "auto"
    trust_remote_code: bool = False


class Shelf:
    """Models by the name a page shows, each behind its own line."""

    def __init__(
        self, models: Sequence[str] = (), loading: Loading | None = None, *, open_to_all: bool = False
    ) -> None:
        self.loading, self.open_to_all = loading or Loading(), open_to_all
        sources = list(dict.fromkeys(models)) or zoo.list_models()
        for source in sources:
            check_model(source, self.loading.device, self.loading.dtype)
        self._desks = {label_of(source): self._desk(source) for source in sources}
        self._extra: dict[str, Desk] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The models the demo was started with."""
        return list(self._desks)

    def desk(self, name: str) -> Desk:
        """The line in front of a model. Raises `InputError` for one that is not there and may not be fetched."""
        if name in self._desks:
            return self._desks[name]
        if not self.open_to_all:
            raise UnknownNameError(f"no model {name!r} here; {neighbours(name, self.names)}")
        # A path would let a visitor read this machine's folders.
        if not HUB_ID.fullmatch(name or "") or ".." in name or Path(name).exists():
            raise InputError(f"{name!r}: another model is named by its Hugging Face id, owner/name")
        with self._lock:
            if name not in self._extra:
                busy = [n for n, desk in self._extra.items() if not desk.idle]
                if len(busy) >= EXTRA:
                    raise InputError(f"{', '.join(busy)} is being asked; try {name} again in a moment")
                for desk in self._extra.values():
                    desk.close()
                self._extra = {name: self._desk(name, trust=False)}
            return self._extra[name]

    def close(self) -> None:
        """End all work, so that the process can."""
        for desk in [*self._desks.values(), *self._extra.values()]:
            desk.close()

    def _desk(self, source: str, trust: bool | None = None) -> Desk:
        options: dict[str, Any] = vars(self.loading)
        if trust is not None:
            options = {**options, "trust_remote_code": trust}

        def load() -> Chat:
            return load_chat(source, **options)

        return Desk(label_of(source), load)


def label_of(source: str) -> str:
    """What a page calls a model: never a path."""
    folder = Path(source).expanduser()
    return folder.resolve().name if source not in zoo.list_models() and folder.is_dir() else source
