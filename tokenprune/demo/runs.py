"""Run folders of the benchmark, read only: nothing outside the chosen folder is ever opened."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..chat import Medium
from ..errors import InputError, TokenPruneError
from ..eval.journal import Record, journals, read_records, read_samples
from ..eval.procedural import BUILT_IN
from ..eval.results import FILE, SCHEMA, Results, figures_of, read_run, score_of
from ..eval.rows import Row
from ..eval.run import RUN
from ..eval.suite import Suite
from ..media import VIDEO_SUFFIXES, load_clip, load_image

DEPTH, MOST = 3, 200
"""How deep run folders are looked for, and how many are listed."""
FLIPS, LOST, GAINED, WORDS, FAILED, ALL = "flips", "lost", "gained", "other words", "failed", "all"
SHOW = (FLIPS, LOST, GAINED, WORDS, FAILED, ALL)
PAGE = 200
"""Lines of the sample browser that are shown at a time."""


@dataclass(frozen=True)
class Pair:
    """One sample under two rows of a run."""

    sample: dict[str, Any]
    a: Record
    b: Record
    scores: tuple[float | None, float | None]

    @property
    def change(self) -> str:
        """What became of the answer on the way from A to B."""
        if "error" in self.a or "error" in self.b:
            return FAILED
        one, two = self.scores
        if one is not None and two is not None and one != two:
            return GAINED if two > one else LOST
        return WORDS if self.a.get("text") != self.b.get("text") else "same"


@dataclass
class Run:
    """One run: its figures, its questions and what every row answered."""

    folder: Path
    facts: dict[str, Any]  # run.json
    results: Results
    samples: list[dict[str, Any]] = field(default_factory=list)
    records: dict[tuple[str, str], Record] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Rows that were answered, by key."""
        return {row["key"]: row for row in self.facts["rows"] if row["state"] == "ok"}

    def pairs(self, a: str, b: str, show: str = FLIPS, kind: str | None = None) -> list[Pair]:
        """Samples that both rows were asked, filtered by what became of the answer and by kind of question."""
        metric = self.results.body["suite"]["metric"]
        out = []
        for sample in self.samples:
            one, two = (self.records.get((key, sample["id"])) for key in (a, b))
            if one is None or two is None or (kind and sample["kind"] != kind):
                continue
            scores = tuple(_score(metric, r, sample) for r in (one, two))
            pair = Pair(sample, one, two, scores)  # type: ignore[arg-type]
            wanted = {ALL: True, FLIPS: pair.change in (LOST, GAINED)}
            if wanted.get(show, pair.change == show):
                out.append(pair)
        return out

    def row(self, key: str) -> Row:
        """A row as the runner takes it."""
        found = self.rows[key]
        chain = tuple(
            (m["name"], json.dumps({k: v for k, v in m.items() if k != "name"}, sort_keys=True))
            for m in found["methods"]
        )
        return Row(found["label"], found["keep"], chain, found["seed"])


class Runs:
    """The run folders beneath one folder."""

    def __init__(self, folder: Path | None, images: Path | None = None) -> None:
        self.folder = None if folder is None else folder.expanduser().resolve()
        self.images = None if images is None else images.expanduser().resolve()
        for given in (self.images,):
            if given is not None and not given.is_dir():
                raise InputError(f"{images}: no such folder")

    def names(self) -> list[str]:
        """Run folders, by their path from the chosen one, the newest first."""
        if self.folder is None or not self.folder.is_dir():
            return []
        found = []
        for depth in range(DEPTH + 1):
            found += [p for p in self.folder.glob("*/" * depth + RUN) if self._inside(p)]
        found.sort(key=lambda p: -p.stat().st_mtime)
        return [p.parent.relative_to(self.folder).as_posix() for p in found[:MOST]]

    def open(self, name: str) -> Run:
        """One of `names()`; anything else, and what cannot be read, is an `InputError`."""
        if name not in self.names() or self.folder is None:
            raise InputError(f"no run {name!r} in the chosen folder")
        folder = self.folder / name
        stamp = tuple(p.stat().st_mtime_ns for p in [folder / RUN, *journals(folder)])
        return _read(folder, stamp)

    def medium(self, run: Run, sample: dict[str, Any]) -> Medium:
        """The picture or clip a sample is about: drawn again, or read from the folder of images."""
        suite = run.facts["suite"]
        if suite["name"] in BUILT_IN:
            about = tuple((k, suite[k]) for k in ("split", "n", "seed") if k in suite)
            found = _suite(suite["name"], about)
            try:
                return next(s for s in found.samples if s.id == sample["id"]).picture.load()
            except StopIteration:
                raise InputError(f"{sample['id']}: the suite {suite['name']} has no such sample") from None
        if self.images is None:
            raise InputError("start the demo with --images and the folder of this suite to see its pictures")
        path = (self.images / sample["picture"]).resolve()
        if not path.is_relative_to(self.images):
            raise InputError(f"{sample['picture']}: lies outside the folder of images")
        if path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES | {".gif"}:
            return load_clip(path, **(suite.get("sampling") or {}))
        return load_image(path, name=sample["picture"])

    def _inside(self, path: Path) -> bool:
        """No link leads out of the chosen folder."""
        assert self.folder is not None
        return path.resolve().is_relative_to(self.folder)


@functools.lru_cache(maxsize=4)
def _read(folder: Path, stamp: tuple[int, ...]) -> Run:
    try:
        return Run(folder, read_run(folder), _results(folder), read_samples(folder), read_records(folder))
    except (KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, TokenPruneError):
            raise InputError(str(error).replace(str(folder), folder.name)) from error
        raise InputError(f"{folder.name}: its files are damaged ({type(error).__name__})") from error


def _results(folder: Path) -> Results:
    """The stored figures where they are younger than every answer, else computed; nothing is written."""
    stored = folder / FILE
    if stored.is_file() and all(stored.stat().st_mtime >= p.stat().st_mtime for p in journals(folder)):
        body = json.loads(stored.read_text(encoding="utf-8"))
        if isinstance(body, dict) and body.get("schema") == SCHEMA:
            return Results(folder, body)
    return figures_of(folder)


@functools.lru_cache(maxsize=2)
def _suite(name: str, about: tuple[tuple[str, Any], ...]) -> Suite:
    return BUILT_IN[name](**dict(about))


def _score(metric: str, record: Record, sample: dict[str, Any]) -> float | None:
    return score_of(metric, record["text"], sample) if sample["answers"] and "text" in record else None
