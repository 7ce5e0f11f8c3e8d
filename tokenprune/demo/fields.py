"""A method's hyper-parameters as form fields, read off its dataclass: nothing is written by hand for any method."""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal

import yaml

from ..errors import InputError, TokenPruneError
from ..methods import Reducer, get_method, method_class

Kind = Literal["flag", "whole", "number", "choice", "text"]
NONE = "none"
"""What stands for None in a list of choices and in a text field."""
SWITCH = {NONE: None, "true": True, "false": False}
WORD = re.compile(r"[A-Za-z][\w+-]*")


@dataclass(frozen=True)
class Field:
    """One hyper-parameter as a form shows it."""

    name: str
    kind: Kind
    default: Any
    optional: bool = False  # None is a value
    choices: tuple[str, ...] = ()

    def shown(self, value: Any) -> Any:
        """A value as its form control holds it."""
        if self.kind == "text":
            return _text(value)
        return _text(value) if self.kind == "choice" else value

    def parse(self, given: Any) -> Any:
        """What a control holds, as the dataclass takes it. Raises `InputError` for what cannot be meant."""
        if self.kind == "flag":
            return bool(given)
        if self.kind == "choice":
            if given not in self.choices:
                raise InputError(f"{self.name}={given!r}: {', '.join(self.choices)}")
            return SWITCH.get(given, given)
        if self.kind == "text":
            return _value(self.name, str(given or ""))
        if given is None or given == "":
            if self.optional:
                return None
            raise InputError(f"{self.name}: a number is missing")
        if self.kind == "whole" and float(given) != int(given):
            raise InputError(f"{self.name}={given}: a whole number")
        return int(given) if self.kind == "whole" else given


@functools.lru_cache(maxsize=256)
def fields_of(method: str) -> tuple[Field, ...]:
    """The hyper-parameters of a registered method but `keep`, in the order of its dataclass.

    One that takes any text at all is left out: it may name a file or a model, and visitors are not to open those.
    """
    cls = method_class(method)
    hints = typing.get_type_hints(cls)
    found = [
        _field(method, f.name, hints[f.name], f.default)
        for f in dataclasses.fields(cls)
        if f.init and f.name != "keep"
    ]
    return tuple(field for field in found if field is not None)


def changed(method: str, given: dict[str, Any]) -> dict[str, Any]:
    """Those of the controls' values that differ from the method's own, parsed; unknown names are left out."""
    out = {}
    for field in fields_of(method):
        if field.name in given:
            value = field.parse(given[field.name])
            if value != field.default or type(value) is not type(field.default):
                out[field.name] = value
    return out


def build(method: str, percent: float, given: dict[str, Any] | None = None) -> Reducer:
    """The method at `percent` of the visual tokens; raises what it says of its numbers."""
    return get_method(method, keep=float(percent) / 100, **changed(method, given or {}))


def check(method: str, given: dict[str, Any]) -> None:
    """Raise what the method says of its numbers, whatever its budget."""
    get_method(method, **changed(method, given))


def _field(method: str, name: str, hint: Any, default: Any) -> Field | None:
    types = set(typing.get_args(hint)) or {hint}
    optional = NoneType in types
    types -= {NoneType}
    if types == {bool}:
        return (
            Field(name, "choice", default, True, tuple(SWITCH)) if optional else Field(name, "flag", default)
        )
    if types == {int}:
        return Field(name, "whole", default, optional)
    if types <= {int, float}:
        return Field(name, "number", default, optional)
    if types == {str}:
        found = (*([NONE] if optional else []), *_choices(method, name, default))
        return Field(name, "choice", default, optional, found) if len(found) > 1 else None
    return Field(name, "text", default, optional)


def _choices(method: str, name: str, default: str | None) -> tuple[str, ...]:
    """Names a field takes: the method says them itself when it refuses a nonsensical one. Each is tried."""
    try:
        get_method(method, **{name: "?"})
        return ()
    except TokenPruneError as error:
        said: list[str] = WORD.findall(str(error))
    words: list[str] = list(dict.fromkeys([*([default] if default is not None else []), *said]))
    return tuple(word for word in words if _accepts(method, name, word))


def _accepts(method: str, name: str, value: str) -> bool:
    try:
        get_method(method, **{name: value})
    except TokenPruneError:
        return False
    return True


def _text(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _value(name: str, text: str) -> Any:
    """`0.25, 0.5` -> (0.25, 0.5); `3` -> 3; `none` -> None; `true` -> True; anything else is a word."""
    if text.strip().lower() in (NONE, ""):
        return None
    try:
        found = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise InputError(f"{name}: {text!r} is no number, word or list of them") from error
    if not all(isinstance(v, (int, float)) or (isinstance(v, str) and WORD.fullmatch(v)) for v in found):
        raise InputError(f"{name}: {text!r} is no number, word or list of them")
    return tuple(found) if "," in text else found[0]
