"""What is asked: questions with their pictures and right answers, from a procedural suite, a JSONL or a folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ..errors import InputError, UnknownNameError, neighbours
from ..media import Picture, find_pictures


class Loadable(Protocol):
    """A picture that is opened when it is needed."""

    @property
    def name(self) -> str: ...

    def load(self) -> Image.Image: ...


@dataclass(frozen=True)
class Sample:
    """One question about one picture. `answers` is empty where no right answer is known."""

    id: str
    question: str
    answers: tuple[str, ...]
    picture: Loadable
    group: str  # samples of one group share a picture; statistics resample groups
    kind: str | None = None


@dataclass(frozen=True)
class Suite:
    """Samples sorted by id, and how their answers are generated and scored."""

    name: str
    samples: tuple[Sample, ...]
    metric: str = "exact"
    max_new_tokens: int = 32
    about: dict[str, Any] = field(default_factory=dict)  # where it came from: split, seed; no paths
    subset: bool = False  # a limit cut it short

    @property
    def graded(self) -> bool:
        """Every sample has a right answer."""
        return all(s.answers for s in self.samples)

    @property
    def kinds(self) -> list[str]:
        return sorted({s.kind for s in self.samples if s.kind})

    def hash(self) -> str:
        """Sixteen hex digits of what is asked; tables that quote a suite quote this."""
        lines = [f"{s.id}|{s.question}|{s.answers}|{s.group}|{s.kind}" for s in self.samples]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def majority(self) -> dict[str, float]:
        """Kind -> share of its most frequent answer: what answering without looking can reach."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for sample in self.samples:
            if sample.answers:
                found[sample.kind or ""][sample.answers[0]] += 1
        return {kind: max(c.values()) / c.total() for kind, c in sorted(found.items())}

    def limited(self, limit: int | None) -> Suite:
        """The first samples in the order of their groups' hashes; whole groups only, so that pairs stay together."""
        if limit is None or limit >= len(self.samples):
            return self
        if limit < 1:
            raise InputError(f"limit {limit}: at least one sample")
        taken: list[Sample] = []
        groups: dict[str, list[Sample]] = defaultdict(list)
        for sample in self.samples:
            groups[sample.group].append(sample)
        for group in sorted(groups, key=lambda g: hashlib.sha256(g.encode()).hexdigest()):
            if taken and len(taken) + len(groups[group]) > limit:
                continue
            taken += groups[group]
        return replace(self, samples=tuple(sorted(taken, key=lambda s: s.id)), subset=True)


def make_suite(name: str, samples: Sequence[Sample], **options: Any) -> Suite:
    """A suite of these samples, sorted by id. Raises `InputError` when there is none or an id comes twice."""
    if not samples:
        raise InputError(f"suite {name}: holds no sample")
    twice = [i for i, count in Counter(s.id for s in samples).items() if count > 1]
    if twice:
        raise InputError(f"suite {name}: id {twice[0]!r} comes more than once ({len(twice)} such ids)")
    return Suite(name, tuple(sorted(samples, key=lambda s: s.id)), **options)


@dataclass(frozen=True)
class Drawn:
    """A procedural picture, drawn when it is needed."""

    name: str
    draw: Callable[[], Image.Image]

    def load(self) -> Image.Image:
        return self.draw()


def scenes(split: str = "test", n: int = 900, seed: int = 0) -> Suite:
    """The drawn scenes of `tokenprune.zoo`: nine kinds of question, answers of one word or number."""
    from ..zoo import scenes as zoo

    found = zoo.suite(split, n, seed)
    samples = [
        Sample(s.id, s.question, (s.answer,), Drawn(s.id, lambda s=s: s.image), s.id.split("-")[0], s.kind)
        for s in found
    ]
    about = {"split": split, "n": n, "seed": seed}
    return make_suite("scenes", samples, metric="exact", max_new_tokens=16, about=about)


BUILT_IN: dict[str, Callable[..., Suite]] = {"scenes": scenes}


def load_suite(spec: str | Mapping[str, Any], home: Path | None = None) -> Suite:
    """A suite by its name, file or folder, or from the `suite` mapping of a configuration.

    spec: `"scenes"`; `"questions.jsonl"`; `"folder"` of pictures with a `questions.jsonl` in it; or a mapping
    `{name: ..., **options}`. Options of files: `images` (folder that picture names are relative to), `metric`,
    `max_new_tokens`, `questions` (asked about every picture of a folder without a listing; no answers are known).
    home: folder that relative paths are relative to. Raises `InputError` naming the file and line.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = str(options.pop("name", ""))
    if name in BUILT_IN:
        try:
            return BUILT_IN[name](**options)
        except (TypeError, ValueError) as error:
            raise InputError(f"suite {name}: {error}") from error
    path = Path(name).expanduser()
    path = path if path.is_absolute() or home is None else home / path
    if path.is_dir():
        return _from_folder(path, options)
    if path.is_file():
        return _from_listing(path, path.parent, options)
    if "/" in name or path.suffix:
        raise InputError(f"suite {name}: no such file or folder")
    raise UnknownNameError(
        f"no suite named {name!r}; {neighbours(name, BUILT_IN)}; or a JSONL file or a folder"
    )


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
    samples = [
        _sample(entry, f"{path.name}, {where}", number, images)
        for number, (where, entry) in enumerate(_entries(path))
    ]
    return _make(label, samples, options)


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


def _sample(entry: Any, where: str, number: int, images: Path) -> Sample:
    if not isinstance(entry, dict):
        raise InputError(
            f"{where}: each line is an object with `image`, `question` and `answer` or `answers`"
        )
    for key in ("image", "question"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise InputError(f"{where}: has no {key!r}")
    answers = entry.get("answers", entry.get("answer", []))
    answers = [answers] if isinstance(answers, (str, int, float)) else answers
    if not isinstance(answers, list):
        raise InputError(f"{where}: `answers` is a list of strings")
    name = entry["image"]
    source = Path(name) if Path(name).is_absolute() else images / name
    return Sample(
        id=str(entry.get("id", f"{number:06d}")),
        question=entry["question"],
        answers=tuple(str(a) for a in answers),
        picture=Picture(name, source),
        group=str(entry.get("group", name)),
        kind=None if entry.get("kind") is None else str(entry["kind"]),
    )


def _make(label: str, samples: Sequence[Sample], options: dict[str, Any]) -> Suite:
    known = {"metric", "max_new_tokens"}
    for key in options:
        if key not in known:
            near = neighbours(key, known | {"images", "questions"})
            raise UnknownNameError(f"suite {label}: no option {key!r}; {near}")
    return make_suite(label, samples, **options)
