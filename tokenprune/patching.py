"""`patch_model` binds methods to a model. The only file that knows both sides."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .errors import BudgetError, PatchError, TokenPruneError, UnsupportedModelError
from .hooks.decoder import LAYER_FIELDS
from .hooks.engine import Engine
from .hooks.parts import Parts, find_parts
from .hooks.tested import warn_untested
from .hooks.vision import TOWER_FIELDS
from .methods import Reducer, get_method, list_methods
from .recipe import Recipe, load_recipe
from .tokens import PruneReport
from .towers.patch import merged_in

Method = str | Reducer
Chain = Sequence[Method | tuple[str, dict[str, Any]]]

_STAGES = {"input": 0, "layer": 1, "decode": 2}
_SERVED = {"input": {*TOWER_FIELDS, "text", "question"}, "layer": {"text", "question", *LAYER_FIELDS}, "decode": set()}
_PATCHED: weakref.WeakKeyDictionary[nn.Module, PatchHandle]


class PatchHandle:
    """A patch on one model: a context manager, removable, with a report of the last prefill."""

    def __init__(self, engine: Engine, given: Sequence[Reducer], methods: Sequence[Reducer]) -> None:
        self._engine = engine
        self._given = tuple(given)
        self._methods = tuple(methods)
        self._active = True

    @property
    def model(self) -> nn.Module:
        return self._engine.parts.model

    @property
    def active(self) -> bool:
        """The model is still patched by this handle."""
        return self._active

    @property
    def methods(self) -> tuple[Reducer, ...]:
        """What runs, by stage: a method of several parts is all of them."""
        return self._methods

    @property
    def report(self) -> PruneReport | None:
        """The last prefill that carried images, or None before the first one."""
        return None if self._engine.last is None else self._engine.last.report()

    def remove(self) -> None:
        """Restore the model bit for bit. A second call does nothing."""
        if self._active:
            self._engine.remove()
            _PATCHED.pop(self._engine.parts.composite, None)
            self._active = False

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The unpruned model inside a `with` block; caches pruned before raise there."""
        before, self._engine.enabled = self._engine.enabled, False
        try:
            yield
        finally:
            self._engine.enabled = before

    def question(self, text: str | Tensor | None) -> None:
        """Set the question that query-aware methods read, as text or token ids; None: find it in the prompt again."""
        self._engine.question.set(text)

    def recipe(self) -> Recipe:
        """The methods and hyper-parameters of this patch, ready to be saved."""
        for method in self._given:
            if not method.name:
                raise TokenPruneError(
                    f"{type(method).__name__} is not registered, so no recipe could name it"
                )
        config: Any = self.model.config
        name = getattr(config, "name_or_path", "") or getattr(config, "_name_or_path", "")
        return Recipe(
            model=os.path.basename(str(name).rstrip("/")) or config.model_type,
            methods=[(m.name, m.hyper()) for m in self._given],
        )

    def __enter__(self) -> PatchHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        names = ", ".join(m.name or type(m).__name__ for m in self._given)
        return f"PatchHandle({type(self.model).__name__}, {names}, {'active' if self._active else 'removed'})"


_PATCHED = weakref.WeakKeyDictionary()


def patch_model(
    model: nn.Module,
    method: Method | Chain | None = None,
    processor: Any = None,
    *,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    **hyper: Any,
) -> PatchHandle:
    """Make a vision-language model read fewer visual tokens, in place and reversibly.

    Args:
        model: any transformers model whose images sit in its token sequence.
        method: a registered name, a `Reducer`, or a chain of both (a pair gives hyper-parameters:
            `["uniform", ("flashvlm", {"keep": 0.5})]`), run by stage; each keep is a share of what reaches it.
        processor: the model's processor; lets query-aware methods find the latest user turn in any chat template,
            and tells a video from images where the model cannot (InternVL, SmolVLM).
        recipe: a `Recipe` or a YAML file instead of `method`.
        hyper: hyper-parameters of a single method, above all `keep`: a share in (0, 1] or a count per image.

    Returns:
        A handle: a context manager with `.remove()`, `.disabled()`, `.question()` and `.report`.

    Raises:
        UnsupportedModelError: no images in the sequence, or the model lacks what the method needs.
        UnknownNameError, BudgetError: a name or number out of range; nothing was changed.
        PatchError: the model is patched already.
    """
    given = _resolve(method, recipe, hyper)
    methods, parts = _parts(given), find_parts(model)
    if parts.composite in _PATCHED:
        raise PatchError(
            f"{_PATCHED[parts.composite]!r} is on this model already; remove() it first, or give several methods at "
            "once as a chain: patch_model(model, ['uniform', 'flashvlm'])"
        )
    for reducer in methods:
        check_method(reducer, parts)
    warn_untested()
    engine = Engine(parts, methods, processor)
    engine.install()
    handle = PatchHandle(engine, given, methods)
    _PATCHED[parts.composite] = handle
    return handle


def unpatch_model(model: nn.Module) -> None:
    """Remove whatever patch is on the model; does nothing on an unpatched one."""
    handle = _PATCHED.get(getattr(model, "base_model", model))
    if handle is not None:
        handle.remove()


def _resolve(method: Method | Chain | None, recipe: Any, hyper: dict[str, Any]) -> list[Reducer]:
    if recipe is not None:
        if method is not None or hyper:
            raise TokenPruneError(
                "give a method or a recipe, not both; edit the recipe to change its numbers"
            )
        loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        return [get_method(name, **values) for name, values in loaded.methods]
    if method is None:
        raise TokenPruneError(
            "give a method by name, e.g. patch_model(model, 'flashvlm', keep=0.25), or a recipe"
        )
    if isinstance(method, str):
        return [get_method(method, **hyper)]
    if isinstance(method, Reducer):
        if hyper:
            raise TokenPruneError(
                f"{type(method).__name__} is built already; give {', '.join(hyper)} to its constructor"
            )
        return [method]
    if hyper:
        raise BudgetError(
            f"{', '.join(hyper)} with a chain says nothing of who gets it; write ('name', {{'keep': ...}}) per method"
        )
    if not isinstance(method, (list, tuple)):
        raise _no_method(method)
    chain = [_link(m) for m in method]
    if not chain:
        raise TokenPruneError("an empty chain prunes nothing")
    return chain


def _link(item: Any) -> Reducer:
    """One item of a chain."""
    if isinstance(item, str):
        return get_method(item)
    if isinstance(item, Reducer):
        return item
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], dict):
        return get_method(item[0], **item[1])
    raise _no_method(item)


def _no_method(given: Any) -> TokenPruneError:
    return TokenPruneError(
        f"{given!r} is no method: give a name, a Reducer made with its hyper-parameters, or a list of them in which "
        "('name', {'keep': ...}) is a name with its own"
    )


def _parts(methods: Sequence[Reducer]) -> list[Reducer]:
    flat = [part for m in methods for part in m.parts()]
    deciding = [m.name or type(m).__name__ for m in flat if m.stage == "decode"]
    if len(deciding) > 1:
        raise TokenPruneError(f"{' and '.join(deciding)} both act at decode time; one of them can")
    return sorted(flat, key=lambda m: _STAGES[m.stage])


def check_method(method: Reducer, parts: Parts) -> None:
    """Raise what can be known before anything is changed: stage, needs, layers."""
    name = method.name or type(method).__name__
    if method.stage == "decode":
        _check_focal(method, name, parts)
        return
    asked = {n.split("@")[0] for n in method.needs}
    missing = asked - _SERVED[method.stage]
    if missing:
        raise UnsupportedModelError(
            f"{name} needs {', '.join(sorted(missing))}, not served at stage {method.stage!r} yet"
        )
    for field in sorted(asked & set(TOWER_FIELDS)):
        if why := parts.withheld(field):
            what = "features" if field == "vision_features" else "attention"
            raise UnsupportedModelError(
                f"{name} needs the vision tower's {what}, and {why}; methods that need none: "
                f"{', '.join(_free_of_tower(parts))}"
            )
    if asked & {"saliency", "vision_keys"} and merged_in(parts.tower) is not None:
        raise PatchError(
            f"{name} reads the vision tower's attention, and patch_tower merges tokens in there; remove() that "
            f"patch, or use a method that needs none: {', '.join(_free_of_tower(parts))}"
        )
    for layer in method.cut_layers(parts.num_layers):
        if layer == 0 and asked & LAYER_FIELDS:
            read = ", ".join(sorted(asked & LAYER_FIELDS))
            raise BudgetError(
                f"{name} reads {read} of the layer before its cut, so it cannot cut at layer 0; "
                f"{type(parts.model).__name__} takes 1 to {parts.first_shared - 1}"
            )
        if layer - 1 in parts.states and asked & LAYER_FIELDS:
            read = ", ".join(sorted(asked & LAYER_FIELDS))
            others = [k + 1 for k in range(parts.first_shared - 1) if k not in parts.states]
            raise BudgetError(
                f"{name} reads {read} of layer {layer - 1}, which is a linear attention or convolution and has none; "
                f"{type(parts.model).__name__} takes {', '.join(map(str, others))}"
            )
        if not 0 <= layer < parts.first_shared:
            raise BudgetError(
                f"{name} cuts at layer {layer}; {type(parts.model).__name__} takes 0 to {parts.first_shared - 1}"
            )


def _check_focal(method: Reducer, name: str, parts: Parts) -> None:
    """A decode-stage method's layers exist, and every layer has keys of its own."""
    if parts.first_shared < parts.num_layers:
        raise UnsupportedModelError(
            f"{name} needs a cache for every layer; {type(parts.model).__name__} shares keys from layer "
            f"{parts.first_shared} on"
        )
    if not method.focal_layers(parts.num_layers):
        raise BudgetError(f"{name} names no focal layer")


def _free_of_tower(parts: Parts) -> list[str]:
    """Methods that ask nothing of the tower which it withholds; nothing of its attention at all."""
    held = {"saliency", "vision_keys"} | {f for f in TOWER_FIELDS if parts.withheld(f)}
    return _asking_none_of(frozenset(held), tuple(list_methods()))


@functools.lru_cache(maxsize=8)  # `explain` asks for every method that does not work
def _asking_none_of(fields: frozenset[str], names: tuple[str, ...]) -> list[str]:
    return [n for n in names if not fields & {x.split("@")[0] for x in get_method(n).needs}]
