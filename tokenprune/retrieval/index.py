"""A two-stage index: a shortlist by single vectors (FAISS), then late interaction with the tokens on disk."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, MissingExtraError, PatchError
from .matching import check_match, late_interaction
from .segments import Segment, open_segment, read_segments, sweep, write_segment

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SCHEMA = "tokenprune.index/1"
ABOUT, LOCK = "index.json", "lock"
BLOCK = 4096
"""Gallery pictures that are matched at a time where all are."""


class Vectors(Protocol):
    """An `Encoded`."""

    @property
    def tokens(self) -> Tensor: ...
    @property
    def single(self) -> Tensor: ...


@dataclass(frozen=True)
class Spec:
    """The shape of what an index holds of a picture: K tokens of width D, a single vector of width C."""

    tokens: int
    width: int
    single: int

    @property
    def bytes(self) -> int:
        """Of a picture, in half precision."""
        return 2 * (self.tokens * self.width + self.single)


@dataclass(frozen=True)
class Hits:
    """Answers to Q queries, best first; shorter than asked where the index is."""

    names: list[list[str]]
    rows: np.ndarray  # (Q, n) in the order in which pictures were added
    scores: np.ndarray  # (Q, n) float32


class Index:
    """A folder of segments (`segments.py`), mapped into memory; single vectors are also in a FAISS index.

    Open it with `Index.open` or `Index.create`. One writer at a time holds a lock, which goes with its process; readers
    need none and see what was there when they opened it. FAISS comes with the extra "retrieval".
    """

    def __init__(self, folder: Path, spec: Spec, factory: str, segments: list[Segment], lock: Any) -> None:
        self.folder, self.spec, self.factory = folder, spec, factory
        self._segments, self._lock = segments, lock
        self._known: set[str] | None = None
        self._faiss: Any = None

    @classmethod
    def create(cls, folder: str | Path, spec: Spec, *, factory: str = "Flat") -> Index:
        """A new, empty index. `factory`: FAISS's description of the first stage ("Flat" is exact, "HNSW32" is not)."""
        folder = Path(folder)
        _import_faiss()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / ABOUT).exists() or any(folder.glob("*.safetensors")):
                raise InputError(f"{folder}: holds an index already; open it, or give another folder")
            lock = _lock(folder)
            draft = folder / (ABOUT + ".part")
            draft.write_text(
                json.dumps({"schema": SCHEMA, "factory": factory, **asdict(spec)}), encoding="utf-8"
            )
            os.replace(draft, folder / ABOUT)
        except OSError as error:
            raise InputError(f"{folder}: no index can be made here ({error.strerror})") from error
        return cls(folder, spec, factory, [], lock)

    @classmethod
    def open(cls, folder: str | Path, *, write: bool = False) -> Index:
        """An index as it was last acknowledged. `write`: to add to it; drafts of a writer that died are removed."""
        folder = Path(folder)
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: holds no index that can be read ({error})") from error
        if about.get("schema") != SCHEMA:
            raise InputError(f"{folder}: an index of the form {about.get('schema')!r}; {SCHEMA!r} is read")
        spec = Spec(about["tokens"], about["width"], about["single"])
        lock = _lock(folder) if write else None
        segments = read_segments(folder)
        for segment in segments:
            _check_shapes(segment.path.name, spec, segment.tokens, segment.single)
        if write:
            sweep(folder, segments)
        return cls(folder, spec, about["factory"], segments, lock)

    def __len__(self) -> int:
        return self._segments[-1].stop if self._segments else 0

    @property
    def names(self) -> list[str]:
        """Of every picture, in the order of rows."""
        return [name for segment in self._segments for name in segment.names]

    @property
    def disk_bytes(self) -> int:
        """Of all segments."""
        return sum(s.path.stat().st_size for s in self._segments)

    def add(self, names: Sequence[str], vectors: Vectors) -> int:
        """Add pictures and wait until they are on the disk; returns the pictures there are now.

        Once this returns nothing can lose them, a killed process and a lost supply of power included; a call that does
        not return has added all of its pictures or none. Raises `InputError` for names that are there already.
        """
        if self._lock is None:
            raise PatchError(f"{self.folder}: was opened to read; Index.open(..., write=True) adds")
        names = list(names)
        tokens = np.ascontiguousarray(vectors.tokens.detach().cpu().half().numpy())
        single = np.ascontiguousarray(vectors.single.detach().cpu().half().numpy())
        _check_shapes("these vectors", self.spec, tokens, single)
        if not len(names) == len(tokens) == len(single):
            raise InputError(
                f"{len(names)} names for {len(tokens)} pictures and {len(single)} single vectors"
            )
        if not names:
            return len(self)
        if not (np.isfinite(tokens).all() and np.isfinite(single).all()):
            raise InputError("these vectors hold values that are not finite")
        known = self._names()
        taken = [n for n in names if n in known or "\n" in n]
        if taken or len(set(names)) < len(names):
            raise InputError(f"names must be new, single lines: {(taken or names)[0]!r} is not")
        write_segment(self.folder, len(self), names, tokens, single)
        self._segments.append(open_segment(self.folder, len(self), len(names)))
        known.update(names)
        if self._faiss is not None:
            self._faiss.add(single.astype(np.float32))
        return len(self)

    def compact(self) -> None:
        """Merge all segments into one; a crash leaves either form."""
        if self._lock is None:
            raise PatchError(f"{self.folder}: was opened to read; Index.open(..., write=True) compacts")
        if len(self._segments) < 2:
            return
        tokens = np.concatenate([s.tokens for s in self._segments])
        single = np.concatenate([s.single for s in self._segments])
        write_segment(self.folder, 0, self.names, tokens, single)
        self._segments = read_segments(self.folder)
        sweep(self.folder, self._segments)

    def tokens(self, rows: np.ndarray) -> Tensor:
        """(n, K, D) float16 of any rows, read from the disk as far as they are not in the system's cache."""
        out = np.empty((len(rows), self.spec.tokens, self.spec.width), dtype=np.float16)
        starts = np.array([s.start for s in self._segments])
        owner = np.searchsorted(starts, rows, side="right") - 1
        for i in np.unique(owner) if len(rows) < BLOCK else ():
            self._segments[i].fetch(rows[owner == i] - starts[i])
        for i in np.unique(owner):
            here = owner == i
            out[here] = self._segments[i].tokens[rows[here] - starts[i]]
        return torch.from_numpy(out)

    def search(
        self, queries: Vectors, top: int = 10, shortlist: int | None = 100, match: str = "maxsim"
    ) -> Hits:
        """The `top` pictures for each query.

        shortlist: pictures that single vectors choose and tokens then put in order; None: tokens match everything.
        0: single vectors alone. match: "maxsim" or "chamfer". A query may have any number of tokens.
        """
        check_match(match)
        for name, value, least in (("top", top, 1), ("shortlist", shortlist, 0)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise InputError(f"{name}={value!r}: a number from {least} on")
        if queries.tokens.shape[2] != self.spec.width or queries.single.shape[1] != self.spec.single:
            raise InputError(f"queries do not fit this index, which holds vectors of {self.spec.width}")
        if not len(self) or not len(queries.tokens):
            empty = np.empty((len(queries.tokens), 0))
            return Hits([[] for _ in empty], empty.astype(np.int64), empty.astype(np.float32))
        if shortlist is None:
            rows, scores = self._everything(queries.tokens, top, match)
        else:
            scores, rows = self._first_stage(queries.single, shortlist or top)
            if shortlist:
                rows, scores = self._rerank(queries.tokens, rows, match)
        rows, scores = rows[:, :top], scores[:, :top]
        return Hits([[self._name(int(r)) for r in line] for line in rows], rows, scores)

    def _first_stage(self, single: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
        if self._faiss is None:
            faiss = _import_faiss()
            self._faiss = faiss.index_factory(self.spec.single, self.factory, faiss.METRIC_INNER_PRODUCT)
            if not self._faiss.is_trained:
                every = np.concatenate([s.single for s in self._segments]).astype(np.float32)
                self._faiss.train(every)
            for segment in self._segments:
                self._faiss.add(segment.single.astype(np.float32))
        asked = np.ascontiguousarray(single.detach().cpu().float().numpy())
        return self._faiss.search(asked, min(count, len(self)))

    def _rerank(self, queries: Tensor, rows: np.ndarray, match: str) -> tuple[np.ndarray, np.ndarray]:
        out = np.full(rows.shape, -np.inf, dtype=np.float32)
        for i, (query, line) in enumerate(zip(queries, rows)):
            there = line >= 0  # FAISS pads an approximate answer with -1
            found = late_interaction(query[None], self.tokens(line[there]), match)
            out[i, there] = found[0].numpy()
        order = np.argsort(-out, axis=1, kind="stable")
        return np.take_along_axis(rows, order, 1), np.take_along_axis(out, order, 1)

    def _everything(self, queries: Tensor, top: int, match: str) -> tuple[np.ndarray, np.ndarray]:
        rows = np.empty((len(queries), 0), dtype=np.int64)
        scores = np.empty((len(queries), 0), dtype=np.float32)
        for start in range(0, len(self), BLOCK):
            here = np.arange(start, min(start + BLOCK, len(self)))
            found = late_interaction(queries, self.tokens(here), match).numpy()
            rows = np.concatenate([rows, np.broadcast_to(here, found.shape)], 1)
            scores = np.concatenate([scores, found], 1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
            rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
        return rows, scores

    def _name(self, row: int) -> str:
        if row < 0:
            return ""
        starts = [s.start for s in self._segments]
        segment = self._segments[int(np.searchsorted(starts, row, side="right")) - 1]
        return segment.names[row - segment.start]

    def _names(self) -> set[str]:
        if self._known is None:
            self._known = set(self.names)
        return self._known

    def close(self) -> None:
        """Give up the lock; what was added stays."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_shapes(what: str, spec: Spec, tokens: np.ndarray, single: np.ndarray) -> None:
    if tokens.shape[1:] != (spec.tokens, spec.width) or single.shape[1:] != (spec.single,):
        raise InputError(
            f"{what}: tokens {tokens.shape[1:]} and single vectors {single.shape[1:]} of a picture do not fit an index "
            f"of {(spec.tokens, spec.width)} and {(spec.single,)}"
        )


def _lock(folder: Path) -> Any:
    """A file nobody else writes under while it is open; the system lets go of it when the process ends, however."""
    file = open(folder / LOCK, "ab")  # noqa: SIM115 closed by `close`
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise PatchError(
                f"{folder}: somebody else is adding to this index; one writer at a time"
            ) from error
    return file


def _import_faiss() -> Any:
    with contextlib.suppress(ImportError):
        import faiss

        return faiss
    raise MissingExtraError.of("faiss-cpu", "retrieval")
