"""From a benchmark's rows to a suite, and what its first row comes to."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ...errors import InputError, UnknownNameError, neighbours
from ..recording import FRAMES, Recording
from ..suite import Loadable, Sample, Suite, make_suite
from .base import Asked, Benchmark, Part, Place, Row
from .dataset import first_row, open_rows
from .fields import check_row, shown
from .media import ClipFolder, RowPicture, open_picture, picture_key, picture_name
from .registry import SCORERS, get_benchmark

if TYPE_CHECKING:
    from ...chat import Medium

SETTINGS = (
    "root", "id", "config", "split", "media", "metric", "also", "max_new_tokens", "frames", "fps",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How a benchmark is asked; see `load_benchmark`."""

    root: Path | None
    id: str | None
    media: Path | None
    sampling: Mapping[str, float]
    parts: tuple[Part, ...]
    own: Mapping[str, Any]


def load_benchmark(name: str, home: Path | None = None, **options: Any) -> Suite:
    """A benchmark as a suite.

    name: one of `list_benchmarks()`, or lmms-eval's. Options: `root`, a file or folder with its rows in place of the
    hub; `id`, another dataset of the hub; `config` and `split`; `media`, the folder of its clips or pictures where it
    is not `root`; `frames` or `fps` of clips; `metric`, `also`, `max_new_tokens`; and the benchmark's own. home: folder
    that relative paths start from. Every row is checked; `InputError` names the first wrong field.
    """
    benchmark = get_benchmark(name)
    asking = _settings(benchmark, home, options)
    samples: list[Sample] = []
    for part in asking.parts:
        samples += _Reader(benchmark, asking, part).samples()
    about: dict[str, Any] = {
        "benchmark": benchmark.name,
        "source": "local files" if asking.root else asking.id or benchmark.ids[0],
        "split": sorted({part.split for part in asking.parts}),
        **({"sampling": dict(asking.sampling)} if benchmark.video else {}),
        **asking.own,
    }
    which = [f"{benchmark.name}.{each}" for each in SCORERS]
    return make_suite(
        benchmark.name, _told_apart(samples),
        metric=options.get("metric") or which[0], also=tuple(options.get("also", which[1:])),
        max_new_tokens=options.get("max_new_tokens") or benchmark.max_new_tokens,
        video=benchmark.video, about=about,
    )  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """What `check_benchmark` found in the first row."""

    benchmark: Benchmark
    part: Part
    fields: list[tuple[str, str, str]]  # name, what it has to be, what it is
    asked: Asked
    medium: Medium


def check_benchmark(name: str, home: Path | None = None, **options: Any) -> Checked:
    """Read the first row and its picture or clip, and no more; `InputError` names the first wrong field."""
    benchmark = get_benchmark(name)
    asking = _settings(benchmark, home, options)
    reader = _Reader(benchmark, asking, asking.parts[0], streaming=True)
    row = first_row(benchmark.name, reader.rows)
    check_row(reader.where(0), benchmark.fields, row)
    asked = next(iter(reader.ask(row, 0)))
    fields = [(n, f.says, shown(row.get(n))) for n, f in benchmark.fields.items()]
    return Checked(benchmark, reader.part, fields, asked, reader.first_medium(row, asked))


def _settings(benchmark: Benchmark, home: Path | None, options: Mapping[str, Any]) -> Settings:
    known = (*SETTINGS, *benchmark.options)
    for key in options:
        if key not in known:
            raise UnknownNameError(f"suite {benchmark.name}: no option {key!r}; {neighbours(key, known)}")
    if not benchmark.video and (options.get("frames") or options.get("fps")):
        raise InputError(f"suite {benchmark.name}: is of pictures; `frames` and `fps` are of clips")
    own = {key: options.get(key, default) for key, default in benchmark.options.items()}
    root, media = (_path(options.get(key), home) for key in ("root", "media"))
    if media is None and root is not None:
        media = root.parent if root.is_file() else root
    if benchmark.video and media is None:
        raise InputError(
            f"{benchmark.name}: its clips are files; name their folder: "
            f"suite: {{name: {benchmark.name}, media: /data/clips}}"
        )
    sampling = {key: options[key] for key in ("frames", "fps") if options.get(key)} or {"frames": FRAMES}
    parts = benchmark.wanted(options.get("config"), options.get("split"), own)
    return Settings(root, options.get("id"), media, sampling, parts, own)


def _path(value: Any, home: Path | None) -> Path | None:
    if value is None:
        return None
    path = Path(str(value)).expanduser()
    return path if path.is_absolute() or home is None else home / path


class _Reader:
    """The rows of one part."""

    def __init__(self, benchmark: Benchmark, asking: Settings, part: Part, streaming: bool = False) -> None:
        self.benchmark, self.asking, self.part, self.streaming = benchmark, asking, part, streaming
        self.rows = self._open(part)
        self.clips = ClipFolder(asking.media) if benchmark.video and asking.media else None
        self.pictures = self.rows
        self.joined: dict[Any, int] | None = None
        joint = benchmark.pictures
        if joint is not None and not streaming and benchmark.image not in self.rows.column_names:
            self.pictures = self._open(Part(joint.config, part.split))
            self.joined = {key: n for n, key in enumerate(self.pictures[joint.id])}

    def _open(self, part: Part) -> Any:
        return open_rows(self.benchmark, part, self.asking.root, self.asking.id, self.streaming)

    def where(self, number: int) -> str:
        config = f" ({self.part.config})" if self.part.config and len(self.asking.parts) > 1 else ""
        return f"{self.benchmark.name}{config}, row {number}"

    def samples(self) -> Iterator[Sample]:
        rows, fields = self.rows, dict(self.benchmark.fields)
        column = self.benchmark.image or ""
        if column in rows.column_names and len(rows) and self._needs_no_picture(rows[0]):
            rows = rows.remove_columns(column)  # gigabytes that nobody asks about yet
            fields.pop(column, None)
        for number, row in enumerate(rows):
            check_row(self.where(number), fields, row)
            for asked in self.ask(row, number):
                yield self._sample(asked, row, number)

    def _needs_no_picture(self, row: Row) -> bool:
        """Whether the other fields of a row say all that a sample is made of."""
        check_row(self.where(0), self.benchmark.fields, row)
        bare = {name: value for name, value in row.items() if name != self.benchmark.image}
        try:
            return all(asked.group is not None for asked in self.ask(bare, 0))
        except KeyError:  # its size is asked for
            return False

    def ask(self, row: Row, number: int) -> list[Asked]:
        place = Place(self.part, number, self.asking.own, lambda: self._size(row, number))
        try:
            return list(self.benchmark.ask(row, place))
        except InputError as error:
            raise InputError(f"{self.where(number)}: {error}") from error

    def _size(self, row: Row, number: int) -> tuple[int, int]:
        """(width, height) of a row's picture, from its header where it is bytes."""
        value = row[self.benchmark.image or ""]
        data = value.get("bytes") if isinstance(value, Mapping) else None
        if not data:
            return open_picture(value, self.asking.media, self.where(number)).size
        try:
            with Image.open(io.BytesIO(data)) as image:
                return image.size
        except OSError as error:
            raise InputError(f"corrupt or unreadable picture ({error})") from error

    def _sample(self, asked: Asked, row: Row, number: int) -> Sample:
        picture, key = self._clip(asked) if self.benchmark.video else self._picture(asked, row, number)
        return Sample(
            asked.id, asked.question, asked.answers, picture, asked.group or key, asked.kind, dict(asked.facts)
        )  # fmt: skip

    def _clip(self, asked: Asked) -> tuple[Loadable, str]:
        assert self.clips is not None and asked.clip is not None
        path = self.clips.find(asked.clip, self.part.folder)
        return Recording(path.name, path, self.asking.sampling), asked.clip

    def _picture(self, asked: Asked, row: Row, number: int) -> tuple[Loadable, str]:
        column = self.benchmark.image or ""
        if self.joined is not None and self.benchmark.pictures is not None:
            key = row[self.benchmark.pictures.key]
            if key not in self.joined:
                raise InputError(f"{self.where(number)}: there is no picture {key!r}")
            return RowPicture(str(key), self.pictures, self.joined[key], column, self.asking.media), str(key)
        value = row.get(column)
        key = asked.group or picture_key(value)
        return RowPicture(picture_name(value, asked.id), self.rows, number, column, self.asking.media), key

    def first_medium(self, row: Row, asked: Asked) -> Medium:
        if self.benchmark.video:
            return self._clip(asked)[0].load()
        column, joint = self.benchmark.image or "", self.benchmark.pictures
        if joint is not None and column not in row:
            row = first_row(self.benchmark.name, self._open(Part(joint.config, self.part.split)))
            check_row(f"{self.benchmark.name} ({joint.config}), row 0", joint.fields, row)
        return open_picture(row[column], self.asking.media, picture_name(row[column], "the picture of row 0"))


def _told_apart(samples: list[Sample]) -> list[Sample]:
    """The same samples; where ids come more than once the later ones are numbered, in the order of the rows."""
    seen: Counter[str] = Counter()
    out = []
    for sample in samples:
        seen[sample.id] += 1
        out.append(replace(sample, id=f"{sample.id}#{seen[sample.id]}") if seen[sample.id] > 1 else sample)
    return out
