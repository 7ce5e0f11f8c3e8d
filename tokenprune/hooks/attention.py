"""Observe attention where queries, keys and mask meet: a dispatcher under the names transformers already uses.

The implementation a user chose stays in charge (its name, its kernel, its masks); a module that carries taps is
looked at before the original runs, and one of them may answer in its place. Without any tap the interface is left as
it was.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

_EAGER = "eager_attention_forward"
_NO_CODE = (lambda: None).__code__
_ATTRIBUTE = "_tokenprune_taps"
_NAMES = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")


class Tap(Protocol):
    """Called before the attention of a tapped module; what it returns, if anything, is the attention's answer."""

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None] | None: ...


class _Dispatcher:
    """Installed while anyone observes; counts its users so that two patched models may come and go in any order."""

    def __init__(self) -> None:
        self.users = 0
        self.originals: dict[str, Callable[..., Any] | None] = {}

    def install(self) -> None:
        self.users += 1
        if self.users > 1:
            return
        interface = _interface()
        mapping = interface._global_mapping
        for name in _NAMES:
            original = mapping.get(name)
            if original is None and name != "eager":
                continue  # not available in this installation
            self.originals[name] = original
            interface.register(name, self._wrap(original))

    def uninstall(self) -> None:
        self.users -= 1
        if self.users:
            return
        interface = _interface()
        for name, original in self.originals.items():
            if original is None:
                interface._global_mapping.pop(name, None)
            else:
                interface.register(name, original)
        self.originals.clear()

    @staticmethod
    def _wrap(original: Callable[..., Any] | None) -> Callable[..., Any]:
        def attention(
            module: nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: Any = None,  # some models pass it by this name
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            for tap in module.__dict__.get(_ATTRIBUTE, ()):
                answer = tap(module, query, key, value, attention_mask, kwargs)
                if answer is not None:
                    return answer
            run = original if original is not None else _own_eager(module)
            return run(module, query, key, value, attention_mask, *args, **kwargs)

        return attention


def _interface() -> Any:
    from transformers.modeling_utils import (
        AttentionInterface,  # seconds to import; whoever has a model paid already
    )

    return AttentionInterface


def _own_eager(module: nn.Module) -> Callable[..., Any]:
    """`eager` is not registered: each modelling file brings its own, and passes it as the default.

    A file with several (Llama 4's tower has one of its own) is asked for the one that the module's forward names.
    """
    for cls in type(module).__mro__:
        forward = inspect.unwrap(cls.__dict__["forward"]) if "forward" in cls.__dict__ else None
        named = [n for n in getattr(forward, "__code__", _NO_CODE).co_names if n.endswith(_EAGER)]
        function = getattr(sys.modules.get(cls.__module__), (named or [_EAGER])[0], None)
        if function is not None:
            return function
    raise RuntimeError(f"no eager attention in the module that defines {type(module).__name__}")


_DISPATCHER = _Dispatcher()


def is_tapped(root: nn.Module) -> bool:
    """Somebody observes attention inside `root`."""
    return any(_ATTRIBUTE in module.__dict__ for module in root.modules())


class Taps:
    """The taps of one patch; `remove` undoes them."""

    def __init__(self) -> None:
        self._placed: list[tuple[nn.Module, Tap]] = []

    def add(self, modules: list[nn.Module], tap: Tap) -> None:
        """Let `tap` see every attention call of these modules."""
        if not self._placed:
            _DISPATCHER.install()
        for module in modules:
            module.__dict__[_ATTRIBUTE] = (*module.__dict__.get(_ATTRIBUTE, ()), tap)
            self._placed.append((module, tap))

    def remove(self) -> None:
        """Leave the modules and, with the last user, the interface as they were."""
        if self._placed:
            _DISPATCHER.uninstall()
        for module, tap in self._placed:
            left = tuple(t for t in module.__dict__.get(_ATTRIBUTE, ()) if t is not tap)
            if left:
                module.__dict__[_ATTRIBUTE] = left
            else:
                module.__dict__.pop(_ATTRIBUTE, None)
        self._placed.clear()
