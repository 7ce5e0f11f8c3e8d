"""Retrieval suites: the drawn craters of `tokenprune.zoo`, and CraterBench-R from its own files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, UnknownNameError, neighbours
from ..media import load_image

RELEVANT = ("filtered", "relevant", "gallery")
"""What the field of a relevance entry that counts is called, or has in its name; the first that fits is taken."""


@dataclass(frozen=True)
class Item:
    """One picture; `load` opens or draws it."""

    id: str
    crater: str
    load: Callable[[], Any]
    relevant: tuple[str, ...] = ()  # of a query


@dataclass(frozen=True)
class Suite:
    """A gallery and its queries. `about` goes into results."""

    name: str
    gallery: Sequence[Item]
    queries: Sequence[Item]
    about: Mapping[str, Any]


def craters(
    split: str = "test", identities: int = 500, asked: int = 60, seed: int = 0, hard: float = 1.0
) -> Suite:
    """The drawn craters of `tokenprune.zoo.craters`."""
    from ..zoo import craters as zoo

    found = zoo.suite(split, identities, asked, seed, hard)

    def items(pictures: Sequence[zoo.Picture]) -> list[Item]:
        return [Item(p.id, p.crater, lambda p=p: p.image, p.relevant) for p in pictures]

    about = {"split": split, "identities": identities, "asked": asked, "seed": seed, "hard": hard}
    return Suite("craters", items(found.gallery), items(found.queries), {**about, "hash": found.hash()})


def craterbench(folder: str | Path, split: str = "test", limit: int | None = None) -> Suite:
    """CraterBench-R (`jfang/CraterBench-R` on the Hugging Face hub) from a folder with its images unpacked.

    Reads `splits/<split>.json` with `gallery_images` and `query_images`, lists of {image_id, path, crater_id, ...}, and
    `metadata/query_relevance.json`, a crater or image of the queries -> the craters that count: a list, or an object
    with one under a name like "gallery_filtered". A query without an entry is relevant to its own crater only.
    `limit`: most queries, the first ones. Raises `InputError` naming the file.
    """
    folder = Path(folder).expanduser()
    where = folder / "splits" / f"{split}.json"
    body = _read_json(where)
    gallery, queries = (_entries(where, body, name) for name in ("gallery_images", "query_images"))
    path = folder / "metadata" / "query_relevance.json"
    relevance = _relevance(path, _read_json(path)) if path.is_file() else {}
    there = {e["crater_id"] for e in gallery}

    def item(entry: Mapping[str, Any], asked: bool) -> Item:
        crater = str(entry["crater_id"])
        source = _inside(folder, entry["path"], where)
        counted: tuple[str, ...] = ()
        if asked:
            named = relevance.get(str(entry["image_id"]), relevance.get(crater, [crater]))
            counted = tuple(c for c in dict.fromkeys(named) if c in there)
        return Item(str(entry["image_id"]), crater, lambda: load_image(source), counted)

    asked = [item(e, True) for e in queries[:limit]]
    about = {"split": split, "version": body.get("version"), "limit": limit, "relevance": bool(relevance)}
    return Suite("craterbench-r", [item(e, False) for e in gallery], asked, about)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(body, dict):
        raise InputError(f"{path}: a JSON object was expected, not a {type(body).__name__}")
    return body


def _entries(path: Path, body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = body.get(name)
    if not isinstance(found, list) or not found:
        raise InputError(f"{path}: holds no list {name!r}")
    for entry in found:
        missing = [k for k in ("image_id", "path", "crater_id") if k not in entry]
        if missing:
            raise InputError(f"{path}: an entry of {name!r} has no {missing[0]!r}")
    return [{**entry, "crater_id": str(entry["crater_id"])} for entry in found]


def _inside(folder: Path, path: object, where: Path) -> Path:
    """Manifests are somebody else's: their paths must not lead out of the folder."""
    full = (folder / str(path)).resolve()
    if not full.is_relative_to(folder.resolve()):
        raise InputError(f"{where}: {path!r} leads out of the folder")
    return full


def _relevance(path: Path, body: Mapping[str, Any]) -> dict[str, list[str]]:
    """Query crater or image -> the craters that count."""
    out: dict[str, list[str]] = {}
    for name, entry in body.items():
        if isinstance(entry, dict):
            lists = {k: v for k, v in entry.items() if isinstance(v, list)}
            field = next((k for word in RELEVANT for k in lists if word in k), None)
            if field is None and not lists:
                continue
            if field is None:
                raise InputError(
                    f"{path}: the entry of {name!r} has none of the fields {', '.join(RELEVANT)}"
                )
            entry = lists[field]
        if isinstance(entry, list):
            out[str(name)] = [str(c) for c in entry]
    return out


SUITES: dict[str, Callable[..., Suite]] = {"craters": craters, "craterbench": craterbench}


def load_suite(about: str | Mapping[str, Any], home: Path | None = None) -> Suite:
    """A suite by name, or {"name": ..., and its arguments}; relative folders start at `home`."""
    options: dict[str, Any] = {"name": about} if isinstance(about, str) else dict(about)
    name = str(options.pop("name", ""))
    if name not in SUITES:
        raise UnknownNameError(f"no retrieval suite named {name!r}; {neighbours(name, SUITES)}")
    if "folder" in options and home is not None:
        options["folder"] = home / str(options["folder"])
    try:
        return SUITES[name](**options)
    except TypeError as error:
        raise InputError(f"suite {name}: {error}") from error
