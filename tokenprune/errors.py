"""The exceptions a user can meet; each message says what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TokenPruneError(Exception):
    """Base class: `except TokenPruneError` catches everything this library raises on purpose."""


class UnknownNameError(TokenPruneError, KeyError):
    """A method, hyper-parameter or model name that does not exist; the message lists its neighbours."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class BudgetError(TokenPruneError, ValueError):
    """A `keep`, `layer` or schedule outside its range."""


class UnsupportedModelError(TokenPruneError, TypeError):
    """A model in which no image lies in the token sequence, or which lacks what a method needs."""


class PatchError(TokenPruneError, RuntimeError):
    """A patch that cannot be applied, or a patched model used in a way that would be silently wrong."""


class InputError(TokenPruneError, ValueError):
    """A file, picture or call that cannot be read; the message names it."""


class MissingExtraError(TokenPruneError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtraError:
        return cls(f"{package} is not installed; it comes with `pip install 'tokenprune-vlm[{extra}]'`")


def neighbours(name: str, known: Iterable[str]) -> str:
    """The names nearest to `name`, for an error message; all of them when nothing is near."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(known)}"
