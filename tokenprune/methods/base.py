"""`Reducer`, the contract of a method, and the registry that everything else is generated from."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import pkgutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol, TypeVar

from torch import BoolTensor, Tensor

from .. import budget as _budget
from ..errors import BudgetError, TokenPruneError, UnknownNameError, neighbours
from ..tokens import Selection, Stage, VisualTokens


class Stream(Protocol):
    """A clip that is thinned while it is running."""

    def update(self, frame: Tensor) -> BoolTensor:
        """(N, D) tokens of the next frame -> (N,) those that stay; memory is bounded by the method's window."""
        ...


@dataclass(frozen=True)
class Reducer:
    """Base of every method: a frozen dataclass whose fields are its hyper-parameters.

    A subclass writes `select` (or `attend` for the decode stage) as pure tensor code over a group of images.
    The first line of its docstring is its entry in every table.
    """

    name: ClassVar[str] = ""  # set by @register
    stage: ClassVar[Stage] = "input"
    query_aware: ClassVar[bool] = False
    exact: ClassVar[bool] = True  # False: the content decides the count; read on the instance, as is needs
    needs: ClassVar[frozenset[str]] = frozenset()

    keep: float | int = 0.25

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", _budget.check_keep(self.keep))

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        """Choose among (S, N) tokens; exact methods keep exactly `keep` of each image."""
        raise TokenPruneError(f"{type(self).__name__} does not select tokens (stage {self.stage!r})")

    def attend(self, attention: Tensor, valid: BoolTensor, state: dict[str, Tensor]) -> BoolTensor:
        """Decode stage: (B, H, V) this step's softmax row over visual keys -> (B, V) keys later layers may read.

        `state` is this focal layer's own: (B, ...) tensors that follow the rows of the cache. The hooks put in `groups`
        (B, Hkv), of which only the shape counts, and `coords` (B, V, 4) long: part, t, y, x of every visual token as in
        `VisualTokens`, parts numbered through the images of a row, NEWLINE throughout behind a row's own.
        """
        raise TokenPruneError(f"{type(self).__name__} does not act at decode time (stage {self.stage!r})")

    def candidates(self, valid: BoolTensor, state: dict[str, Tensor]) -> BoolTensor | None:
        """Decode stage, before `attend`: (B, V) visual keys this focal layer may read; None: all, with no host read.

        The attention `attend` is then given is zero elsewhere and adds up to one with the text's.
        """
        return None

    def focal_layers(self, num_layers: int) -> tuple[int, ...]:
        """Decode stage: the layers that read everything and at which `attend` is called, ascending."""
        raise TokenPruneError(f"{type(self).__name__} does not act at decode time (stage {self.stage!r})")

    def num_read(self, n: int) -> int:
        """Decode stage: the most visual keys of n that a layer which is not focal reads."""
        raise TokenPruneError(f"{type(self).__name__} does not act at decode time (stage {self.stage!r})")

    def cut_layers(self, num_layers: int) -> tuple[int, ...]:
        """Decoder layers at whose entry `select` is called, ascending. From `layer` / `layers` where they exist."""
        if self.stage == "input":
            return (0,)
        if self.stage == "decode":
            return ()
        layers = getattr(self, "layers", None)
        if layers is None:
            layers = (getattr(self, "layer", 2),)
        return tuple(sorted({_budget.resolve_layer(k, num_layers) for k in layers}))

    def schedule(self, n: int, num_layers: int) -> dict[int, int] | None:
        """Tokens of one image alive from each cut layer on; None when the content decides. Pure Python."""
        if not self.exact:
            return None
        layers = self.cut_layers(num_layers)
        if self.stage == "decode":
            return {}
        if len(layers) != 1:
            raise BudgetError(
                f"{type(self).__name__} cuts at {len(layers)} layers and must define its own schedule"
            )
        return _budget.one_cut(self.keep, n, layers[0], num_layers, getattr(self, "budget", "average"))

    def floor(self, n: int, num_layers: int) -> float:
        """Fewest tokens of n, on layer average, that this method can be asked for: its first cut leaves one."""
        layers = self.cut_layers(num_layers)
        return _budget.layer_floor(n, layers[0], num_layers) if layers else float(n)

    def num_kept(self, n: int, num_layers: int = 1) -> int | None:
        """Tokens of one image that survive the last cut, known before any pixel is seen; None if content decides."""
        plan = self.schedule(n, num_layers)
        if plan is None:
            return None
        return plan[max(plan)] if plan else n

    def parts(self) -> tuple[Reducer, ...]:
        """The reducers this one stands for, when several stages act under one name."""
        return (self,)

    def stream(self) -> Stream:
        """A new, empty `Stream` for frames that come one by one."""
        raise TokenPruneError(f"{type(self).__name__} does not work on streams")

    def hyper(self) -> dict[str, Any]:
        """Hyper-parameters as a plain dict: `get_method(m.name, **m.hyper())` rebuilds m."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def describe(cls) -> str:
        """The table entry: first line of the docstring."""
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0]


R = TypeVar("R", bound=type[Reducer])
_METHODS: dict[str, type[Reducer]] = {}
_ALIASES: dict[str, str] = {}
_LOADED: set[str] = set()
_MACHINERY = {"base"}


def register(name: str, *, aliases: tuple[str, ...] = ()) -> Callable[[R], R]:
    """Class decorator: make a `Reducer` known by `name`, to the CLI, the tables and the contract tests."""

    def bind(cls: R) -> R:
        for n in (name, *aliases):
            other = _METHODS.get(_ALIASES.get(n, n))
            if other is not None and other.__qualname__ != cls.__qualname__:
                raise TokenPruneError(f"a method named {n!r} is already registered ({other.__module__})")
        cls.name = name
        _METHODS[name] = cls
        _ALIASES.update(dict.fromkeys(aliases, name))
        return cls

    return bind


def _load_all() -> None:
    """Import every file of this folder and every third-party entry point, once each."""
    package = importlib.import_module(__package__ or "tokenprune.methods")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in _MACHINERY and not module.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{module.name}")
    for point in entry_points(group="tokenprune.methods"):
        if point.value in _LOADED:
            continue
        _LOADED.add(point.value)
        try:
            point.load()
        except Exception as error:  # somebody else's package must not take ours down
            warnings.warn(f"tokenprune.methods entry point {point.name!r} failed: {error}", stacklevel=2)


def list_methods(pattern: str = "*") -> list[str]:
    """Names of the registered methods that match a glob, sorted."""
    _load_all()
    return sorted(fnmatch.filter(_METHODS, pattern))


def method_class(name: str) -> type[Reducer]:
    """The class behind a name or alias."""
    if _ALIASES.get(name, name) not in _METHODS:  # looking through all that is installed takes 20 ms
        _load_all()
    cls = _METHODS.get(_ALIASES.get(name, name))
    if cls is None:
        raise UnknownNameError(f"no method named {name!r}; {neighbours(name, [*_METHODS, *_ALIASES])}")
    return cls


def get_method(name: str, **hyper: Any) -> Reducer:
    """Build a method by name or alias. Unknown names and hyper-parameters raise with their neighbours."""
    cls = method_class(name)
    fields = {f.name for f in dataclasses.fields(cls) if f.init}
    for key in hyper:
        if key not in fields:
            raise UnknownNameError(f"{name} has no hyper-parameter {key!r}; {neighbours(key, fields)}")
    return cls(**hyper)
