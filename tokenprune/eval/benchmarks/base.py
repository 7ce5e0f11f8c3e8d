"""`Benchmark`: everything that one public benchmark is, as data and a function from a row to what it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .fields import Field
from .scoring import Scorer

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A configuration and split of a dataset. `folder` is where its clips usually lie in the media folder."""

    config: str | None
    split: str
    folder: str = ""


@dataclass(frozen=True)
class Place:
    """Where a row stands, and how it is to be asked."""

    part: Part
    number: int  # of the row in its part, from 0 on
    options: Mapping[str, Any]  # the benchmark's own ones
    size: Callable[[], tuple[int, int]]  # (width, height) of its picture


@dataclass(frozen=True)
class Asked:
    """What a row asks. group: None where rows with the same picture are one; clip: the name of its file."""

    id: str
    question: str
    answers: tuple[str, ...]
    kind: str | None = None
    group: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    clip: str | None = None


@dataclass(frozen=True)
class Pictures:
    """A configuration of its own that holds the pictures: `key` of a row is `id` there."""

    config: str
    key: str
    id: str
    fields: Mapping[str, Field]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    ids: Hugging Face datasets that hold the same rows, the present name first.
    parts: what is asked where neither `config` nor `split` is given.
    configs: split -> the configuration that it lies in, where that is not the one of `parts`.
    fields: of a row; the first wrong one is named.
    ask: a row -> its questions.
    image: the column of pictures; None for a benchmark of clips.
    options: its own options with their defaults.
    prompt, rows: for the documentation.
    """

    name: str
    title: str
    ids: tuple[str, ...]
    parts: tuple[Part, ...]
    fields: Mapping[str, Field]
    ask: Callable[[Row, Place], Iterable[Asked]]
    max_new_tokens: int
    lmms: Scorer
    strict: Scorer
    prompt: str
    rows: str
    aliases: tuple[str, ...] = ()
    configs: Mapping[str, str] = field(default_factory=dict)
    image: str | None = "image"
    pictures: Pictures | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    choose: Callable[[Sequence[Part], Mapping[str, Any]], Sequence[Part]] | None = None

    @property
    def video(self) -> bool:
        return self.image is None

    def wanted(self, config: str | None, split: str | None, options: Mapping[str, Any]) -> tuple[Part, ...]:
        """The parts that are asked under these settings."""
        parts = tuple(self.choose(self.parts, options)) if self.choose else self.parts
        if config is None and split is None:
            return parts
        return tuple(
            Part(
                config or self.configs.get(split or part.split, part.config), split or part.split, part.folder
            )
            for part in parts
        )


def votes(value: Any) -> tuple[str, ...]:
    """The annotators' answers, from any of the shapes in which they are stored."""
    listed = value.get("answer") if isinstance(value, Mapping) else value
    return tuple(str(v["answer"] if isinstance(v, Mapping) else v) for v in listed or ())


def first_of(row: Row, *columns: str) -> str | None:
    """The first of these columns that is filled, as text."""
    return next((str(row[c]) for c in columns if row.get(c) is not None), None)
