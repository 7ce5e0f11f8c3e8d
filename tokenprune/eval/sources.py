"""Suites by name, from a JSONL or from a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, UnknownNameError, neighbours
from ..media import Picture, find_pictures
from .benchmarks import is_benchmark, list_benchmarks, load_benchmark
from .procedural import BUILT_IN
from .recording import FRAMES, Recording
from .suite import Sample, Suite, make_suite


def load_suite(spec: str | Mapping[str, Any], home: Path | None = None) -> Suite:
    """A suite by its name, file or folder, or from the `suite` mapping of a configuration.

    spec: `"scenes"`, `"documents"`, `"clips"`; `"questions.jsonl"`; `"folder"` of pictures with a `questions.jsonl` in
    it; or a mapping `{name: ..., **options}`. Options of files: `images` (folder that names are relative to), `metric`,
    `also` (further metrics), `max_new_tokens`, `frames` or `fps` of clips, `questions` (asked about every picture of a
    folder without a listing; no answers are known). A line has an `image` or a `video`. Or a public benchmark,
    `{name: pope, root: /data/pope}`: see `benchmarks.load_benchmark`.
    home: folder that relative paths are relative to. Raises `InputError` naming the file and line.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = str(options.pop("name", ""))
    if name in BUILT_IN:
        try:
            return BUILT_IN[name](**options)
        except (TypeError, ValueError) as error:
            raise InputError(f"suite {name}: {error}") from error
    if is_benchmark(name):
        return load_benchmark(name, home, **options)
    path = Path(name).expanduser()
    path = path if path.is_absolute() or home is None else home / path
    if path.is_dir():
        return _from_folder(path, options)
    if path.is_file():
        return _from_listing(path, path.parent, options)
    if "/" in name or path.suffix:
        raise InputError(f"suite {name}: no such file or folder")
    known = [*BUILT_IN, *list_benchmarks()]
    raise UnknownNameError(f"no suite named {name!r}; {neighbours(name, known)}; or a JSONL file or a folder")


def _from_folder(folder: Path, options: dict[str, Any]) -> Suite:
    questions = options.pop("questions", None)
    listing = next((f for f in (folder / "questions.jsonl", folder / "questions.json") if f.is_file()), None)
    if listing is not None and questions is None:
        return _from_listing(listing, folder, {"label": folder.name, **options})
    asked = [questions] if isinstance(questions, str) else list(questions or ())
    if not asked:
        raise InputError(f"suite {folder.name}: no questions.jsonl in this folder, and no `questions` to ask")
    options.pop("images", None)
    samples = [
        Sample(f"{p.name}-{i}", q, (), p, p.name) for p in find_pictures(folder) for i, q in enumerate(asked)
    ]
    return _make(folder.name, samples, options)


def _from_listing(path: Path, images: Path, options: dict[str, Any]) -> Suite:
    label = options.pop("label", path.stem)
    if options.get("images"):
        given = Path(str(options["images"])).expanduser()
        images = given if given.is_absolute() else path.parent / given
    options.pop("images", None)
    sampling = {key: options.pop(key) for key in ("frames", "fps") if key in options} or {"frames": FRAMES}
    samples = [
        _sample(entry, f"{path.name}, {where}", number, images, sampling)
        for number, (where, entry) in enumerate(_entries(path))
    ]
    films = sum(isinstance(s.picture, Recording) for s in samples)
    if films not in (0, len(samples)):
        raise InputError(f"{path.name}: a suite is of pictures or of clips, not of both")
    about = {"sampling": dict(sampling)} if films else {}
    return _make(label, samples, {**options, "video": films > 0, "about": about})


def _entries(path: Path) -> list[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return [(f"entry {i}", entry) for i, entry in enumerate(json.loads(text), 1)]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path.name}: cannot read this list of questions ({error})") from error
    out = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                out.append((f"line {number}", json.loads(line)))
            except ValueError as error:
                raise InputError(f"{path.name}, line {number}: not JSON ({error})") from error
    return out


def _sample(
    entry: Any, where: str, number: int, images: Path, sampling: Mapping[str, float]
) -> Sample:
    if not isinstance(entry, dict):
        raise InputError(
            f"{where}: each line is an object with `image`, `question` and `answer` or `answers`"
        )
    medium = "video" if "video" in entry else "image"
    for key in (medium, "question"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise InputError(f"{where}: has no {key!r}")
    answers = entry.get("answers", entry.get("answer", []))
    answers = [answers] if isinstance(answers, (str, int, float)) else answers
    if not isinstance(answers, list):
        raise InputError(f"{where}: `answers` is a list of strings")
    name = entry[medium]
    source = Path(name) if Path(name).is_absolute() else images / name
    return Sample(
        id=str(entry.get("id", f"{number:06d}")),
        question=entry["question"],
        answers=tuple(str(a) for a in answers),
        picture=Picture(name, source) if medium == "image" else Recording(name, source, sampling),
        group=str(entry.get("group", name)),
        kind=None if entry.get("kind") is None else str(entry["kind"]),
    )


def _make(label: str, samples: Sequence[Sample], options: dict[str, Any]) -> Suite:
    known = {"metric", "max_new_tokens", "also"}
    internal = {"video", "about"}
    options["also"] = tuple(options.get("also", ()))
    for key in options.keys() - internal:
        if key not in known:
            near = neighbours(key, known | {"images", "questions", "frames", "fps"})
            raise UnknownNameError(f"suite {label}: no option {key!r}; {near}")
    return make_suite(label, samples, **options)
