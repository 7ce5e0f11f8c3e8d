"""What the fields of a row have to be, in words and as a test, so that a dataset of another shape is named at once."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import InputError


@dataclass(frozen=True)
class Field:
    """One field. `says` completes "is ..., not"; an optional one may be missing or None."""

    says: str
    holds: Callable[[Any], bool]
    optional: bool = False

    def or_nothing(self) -> Field:
        return replace(self, optional=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_picture(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value.get("bytes")) or bool(value.get("path"))
    return _is_text(value) or hasattr(value, "convert")


def _are_votes(value: Any) -> bool:
    votes = value.get("answer") if isinstance(value, Mapping) else value
    if not isinstance(votes, list) or not votes:
        return False
    return all(isinstance(v.get("answer") if isinstance(v, Mapping) else v, str) for v in votes)


TEXT = Field("a text", _is_text)
ANY_TEXT = Field("a text, empty or not", lambda v: isinstance(v, str))
ID = Field("a text or a whole number", lambda v: _is_text(v) or _is_whole(v))
WHOLE = Field("a whole number", _is_whole)
YES_NO = Field("yes or no", lambda v: isinstance(v, str) and v.strip().lower() in ("yes", "no"))
LETTER = Field(
    "one capital letter", lambda v: isinstance(v, str) and len(v) == 1 and v in string.ascii_uppercase
)
INDEX = Field("the number of an option, from 0 on", lambda v: str(v).isdecimal() and not isinstance(v, bool))
TEXTS = Field(
    "a list of one text or more",
    lambda v: isinstance(v, list) and bool(v) and all(isinstance(x, str) for x in v),
)
OPTIONS = Field(
    "a list of two texts or more",
    lambda v: isinstance(v, list) and len(v) > 1 and all(isinstance(x, str) for x in v),
)
TEXT_OR_TEXTS = Field("a text or a list of them", lambda v: _is_text(v) or TEXTS.holds(v))
VOTES = Field("a list of the annotators' answers, texts or mappings with an `answer`", _are_votes)
PICTURE = Field("a picture: bytes, or the path of a file", _is_picture)
BOX = Field(
    "a box [x, y, width, height] in pixels",
    lambda v: isinstance(v, list) and len(v) == 4 and all(map(_is_number, v)),
)


def check_row(where: str, fields: Mapping[str, Field], row: Mapping[str, Any]) -> None:
    """`InputError` naming the first field that is not what it has to be; `where` is the dataset and row in words."""
    for name, field in fields.items():
        value = row.get(name)
        if field.optional and value is None:
            continue
        if name not in row:
            raise InputError(
                f"{where}: has no field {name!r}, {field.says} (its fields: {', '.join(sorted(row))})"
            )
        if not field.holds(value):
            raise InputError(f"{where}: field {name!r} is {shown(value)}, not {field.says}")


def shown(value: Any) -> str:
    """A value for a message, in at most 60 characters."""
    if isinstance(value, Mapping) and "bytes" in value:
        size = len(value["bytes"] or b"")
        return f"a picture of {size} bytes" + (f" ({value['path']})" if value.get("path") else "")
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
