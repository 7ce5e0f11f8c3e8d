"""What is asked: questions with their pictures or clips and right answers."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..chat import Medium
from ..errors import InputError


class Loadable(Protocol):
    """A picture or clip that is opened when it is needed."""

    @property
    def name(self) -> str: ...

    def load(self) -> Medium: ...


@dataclass(frozen=True)
class Sample:
    """One question about one picture or clip. `answers` is empty where no right answer is known."""

    id: str
    question: str
    answers: tuple[str, ...]
    picture: Loadable
    group: str  # samples of one group share a picture; statistics resample groups
    kind: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)  # what else its scorer needs, as plain data


@dataclass(frozen=True)
class Suite:
    """Samples sorted by id, and how their answers are generated and scored."""

    name: str
    samples: tuple[Sample, ...]
    metric: str = "exact"
    max_new_tokens: int = 32
    also: tuple[str, ...] = ()  # further metrics the same answers are scored by
    about: dict[str, Any] = field(default_factory=dict)  # where it came from: split, seed; no paths
    subset: bool = False  # a limit cut it short
    video: bool = False  # its media are clips

    @property
    def graded(self) -> bool:
        """Every sample has a right answer."""
        return all(s.answers for s in self.samples)

    @property
    def kinds(self) -> list[str]:
        return sorted({s.kind for s in self.samples if s.kind})

    def hash(self) -> str:
        """Sixteen hex digits of what is asked; tables that quote a suite quote this."""
        lines = [
            f"{s.id}|{s.question}|{s.answers}|{s.group}|{s.kind}" + (f"|{dict(s.facts)}" if s.facts else "")
            for s in self.samples
        ]
        if "sampling" in self.about:  # other frames of the same clips are another question
            lines.append(str(self.about["sampling"]))
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
