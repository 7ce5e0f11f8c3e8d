"""What may differ between the libraries that towers come from, and which class belongs to which.

A tower is a stack of blocks, each `x + attention(norm(x))` and then `x + mlp(norm(x))`, over (B, prefix + patches, D).
A library says where its parts are. To add one: a file in this folder with a `Library` subclass under `@library`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from ..errors import UnsupportedModelError

Undo = Callable[[], Any]
See = Callable[[Callable[[], Tensor]], None]

_LIBRARIES: dict[str, type[Library]] = {}
_WRAPPERS: dict[str, str] = {}


class Library:
    """One library's towers."""

    classes: ClassVar[tuple[str, ...]] = ()  # as "package.Class"; subclasses count
    wrappers: ClassVar[dict[str, str]] = {}  # "package.Class" -> attribute that holds the tower itself
    attention: ClassVar[str]  # of a block, as attribute paths
    into_mlp: ClassVar[str]  # the first module of the MLP's branch: it is given the tokens
    out_of_mlp: ClassVar[str]  # the last one: its output is added to them
    masks: ClassVar[tuple[str, ...]]  # arguments of attention that speak of single tokens

    def blocks(self, tower: nn.Module) -> list[nn.Module]:
        """In the order they run."""
        raise NotImplementedError

    def prefix(self, tower: nn.Module) -> int:
        """Class, register and distillation tokens before the patches; they are never merged."""
        raise NotImplementedError

    def patches(self, tower: nn.Module) -> int | None:
        """Of a picture of the configured size; None where the tower does not say."""
        raise NotImplementedError

    def check(self, tower: nn.Module, proportional: bool) -> None:
        """Raise `UnsupportedModelError` for variants in which merging would be wrong."""

    def watch(self, attention: nn.Module, see: See) -> Undo:
        """Call `see` at each forward, with a function that gives the (B, n, C) head-mean keys."""
        raise NotImplementedError

    def extra_columns(self, attention: nn.Module) -> int:
        """Columns of a product with the tokens that `watch` makes on top of the tower's own."""
        return 0

    def biased(self, attention: nn.Module, kwargs: dict[str, Any], bias: Tensor) -> dict[str, Any]:
        """The arguments of attention with (B, n) added to the logits of the keys."""
        raise NotImplementedError

    def checkpoints(self, tower: nn.Module) -> bool:
        """The blocks would run a second time in the backward pass."""
        raise NotImplementedError

    def pool(self, tower: nn.Module, whole: Callable[[Tensor], Tensor]) -> list[Undo]:
        """Let whatever pools over all tokens see `whole(tokens)`."""
        return []


def library(cls: type[Library]) -> type[Library]:
    """Class decorator: this library's towers can be patched."""
    _LIBRARIES.update(dict.fromkeys(cls.classes, cls))
    _WRAPPERS.update(cls.wrappers)
    return cls


def find_tower(module: nn.Module) -> tuple[nn.Module, Library]:
    """The tower itself, out of its wrapper, and its library; or `UnsupportedModelError` with what would work."""
    _load()
    found = _inside(module)
    if found is not None:
        return found
    known = ", ".join(sorted({*_LIBRARIES, *_WRAPPERS}))
    kind = type(module).__name__
    near = []
    if isinstance(module, nn.Module):
        near = [name for name, part in module.named_modules() if name and _inside(part) is not None]
    if near:
        raise UnsupportedModelError(
            f"{kind} is not a vision tower, but has one: patch_tower(model.{near[0]}, ...)"
        )
    raise UnsupportedModelError(
        f"{kind} is no vision tower that can be patched; known: {known}. Nothing needs to be installed for a tower "
        "that exists; timm and open_clip come with `pip install 'tokenprune-vlm[towers]'`"
    )


def submodule(root: nn.Module, path: str) -> nn.Module:
    """As `get_submodule`, with the block's class in the error."""
    try:
        return root.get_submodule(path)
    except AttributeError:
        raise UnsupportedModelError(
            f"a block of class {type(root).__name__} has no {path}, so it is not `x + attention(x)`, `x + mlp(x)` "
            "in the form that merging needs"
        ) from None


def _names(module: Any) -> Iterator[str]:
    for cls in type(module).__mro__:
        yield f"{cls.__module__.split('.')[0]}.{cls.__name__}"


def _inside(module: Any) -> tuple[nn.Module, Library] | None:
    for name in _names(module):
        if name in _LIBRARIES:
            return module, _LIBRARIES[name]()
        if name in _WRAPPERS:
            inner = getattr(module, _WRAPPERS[name], None)
            return None if inner is None else _inside(inner)
    return None


def _load() -> None:
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.startswith("of_"):
            importlib.import_module(f"{package}.{module.name}")
