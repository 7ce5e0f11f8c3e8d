"""Rows of a dataset, from the hub or from files of one's own, by the `datasets` library."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError, MissingExtraError, TokenPruneError
from .base import Benchmark, Part

BUILDERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def open_rows(
    benchmark: Benchmark, part: Part, root: Path | None, id: str | None, streaming: bool = False
) -> Any:
    """The rows of one part as a `datasets.Dataset`, or an iterable one with `streaming`. Pictures stay encoded.

    root: a file, or a folder that was cloned, saved by `save_to_disk` or filled by hand; None: the hub, where the
    first of the benchmark's ids that is there is taken, or `id`. Raises `InputError` that says what was looked for.
    """
    _datasets()  # where it is missing, that is what is wrong
    if root is not None:
        rows = _local(benchmark.name, root, part, streaming)
    else:
        rows = _hub(benchmark.name, (id,) if id else benchmark.ids, part, streaming)
    return _encoded(rows)


def first_row(name: str, rows: Any) -> dict[str, Any]:
    """The first row. `InputError` where there is none, or files that are read only now turn out to be broken."""
    try:
        row = next(iter(rows), None)
    except Exception as error:  # whatever pyarrow and datasets say about somebody's files
        raise InputError(f"{name}: cannot be loaded ({_first_line(error)})") from error
    if row is None:
        raise InputError(f"{name}: the dataset holds no row")
    return row


def _datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise MissingExtraError.of("datasets", "eval") from error


def _load(where: str, part: Part, streaming: bool, **files: Any) -> Any:
    return _datasets().load_dataset(where, name=part.config, split=part.split, streaming=streaming, **files)


def _hub(name: str, ids: Sequence[str], part: Part, streaming: bool) -> Any:
    said: list[str] = []
    for one in ids:
        try:
            return _load(one, part, streaming)
        except (
            Exception
        ) as error:  # not there, gated, no network, no such configuration: each has a class of its own
            said.append(f"{one} ({_first_line(error)})")
    raise InputError(
        f"{name}: no dataset can be loaded: {'; '.join(said)}. With the files at hand, name their folder: "
        f"suite: {{name: {name}, root: /data/{name}}}"
    )


def _local(name: str, root: Path, part: Part, streaming: bool) -> Any:
    if not root.exists():
        raise InputError(f"{name}: {root}: no such file or folder")
    try:
        if root.is_file():
            return _file(name, [root], streaming)
        folder = root / part.config if part.config and (root / part.config).is_dir() else root
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            saved = _datasets().load_from_disk(str(folder))
            return saved if (folder / "state.json").is_file() else _split(name, saved, part)
        if folder == root and _declares(root, part):
            return _load(str(root), part, streaming)
        if files := _listings(name, folder, part):
            return _file(name, files, streaming)
        return _load(str(folder), Part(None, _split_of(name, folder, part)), streaming)
    except TokenPruneError:
        raise
    except Exception as error:  # whatever pyarrow and datasets say about somebody's files
        raise InputError(f"{name}: {root.name}: cannot be loaded ({_first_line(error)})") from error


def _file(name: str, files: Sequence[Path], streaming: bool) -> Any:
    builder = BUILDERS.get(files[0].suffix)
    if builder is None:
        raise InputError(
            f"{name}: {files[0].name}: rows are read from {', '.join(BUILDERS)} or from a folder"
        )
    return _load(builder, Part(None, "train"), streaming, data_files=[str(file) for file in files])


def _listings(name: str, folder: Path, part: Part) -> list[Path]:
    """JSON files of this part. `load_dataset` would take the pictures beside them for the dataset."""
    files = sorted(
        f for where in (folder, folder / "json") for f in where.glob("*.json*") if f.suffix in BUILDERS
    )
    for wanted in (part.config, part.split):
        named = [f for f in files if wanted and wanted in (f.stem, *f.stem.split("-"), *f.stem.split("."))]
        if named:
            return named
    if len(files) > 1:
        raise InputError(
            f"{name}: {folder.name}: holds {files[0].name}, {files[1].name}, ..., none named {part.split}; "
            "name the file as root, or a `split`"
        )
    return files


def _declares(root: Path, part: Part) -> bool:
    """Whether a cloned dataset's card lists this configuration."""
    if part.config is None or not (root / "README.md").is_file():
        return False
    return part.config in _datasets().get_dataset_config_names(str(root))


def _split_of(name: str, folder: Path, part: Part) -> str:
    """The split asked for, or the only one there is: files without a split in their names are "train"."""
    return _choose(name, _datasets().get_dataset_split_names(str(folder)), part)


def _split(name: str, saved: Any, part: Part) -> Any:
    return saved[_choose(name, list(saved), part)]


def _choose(name: str, splits: Sequence[str], part: Part) -> str:
    if part.split in splits:
        return part.split
    if len(splits) == 1:
        return splits[0]
    raise InputError(f"{name}: no split {part.split!r}; there are: {', '.join(splits)}")


def _encoded(rows: Any) -> Any:
    """Every column of pictures as bytes and path, to be decoded when a picture is asked about."""
    image = _datasets().Image
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, image):
            rows = rows.cast_column(column, image(decode=False))
    return rows


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
