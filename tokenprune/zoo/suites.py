"""What the suites of `scenes`, `documents` and `clips` have in common: samples, quotas, hashes."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .layout import Box
from .splits import check_split, digest


@dataclass(frozen=True)
class Sample:
    """One question; each suite adds the drawing it is about, as its last field, and what that looks like.

    `boxes`: what has to be seen to answer, (left, top, right, bottom) in pixels of the picture. `id` is the key of the
    drawing, a dash and the kind.
    """

    id: str
    question: str
    answer: str
    kind: str
    boxes: tuple[Box, ...]
    split: str

    @property
    def box(self) -> Box | None:
        """The box of what the question names first."""
        return self.boxes[0] if self.boxes else None


def generator(split: str, n: int, seed: int, suite: str = "") -> random.Random:
    """The random numbers that `n` questions of `split` are drawn with; ValueError where these make no suite.

    `suite` is a prefix that gives each suite numbers of its own.
    """
    check_split(split)
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    return random.Random(f"{suite}{split}/{n}/{seed}")


class Quota:
    """How often each of `kinds`, and each answer of the kinds that are `closed`, may still be asked.

    `n` questions are shared out evenly; `closed` says how many answers a kind has.
    """

    def __init__(self, n: int, kinds: Sequence[str], closed: Mapping[str, int]) -> None:
        self.left = {kind: n // len(kinds) + (i < n % len(kinds)) for i, kind in enumerate(kinds)}
        self.used: dict[str, Counter[str]] = defaultdict(Counter)
        self._most = {kind: -(-self.left[kind] // count) for kind, count in closed.items()}

    def has_room(self, kind: str, answer: str) -> bool:
        """Whether this answer may be asked for once more."""
        return kind not in self._most or self.used[kind][answer] < self._most[kind]

    def take(self, kind: str, answer: str) -> None:
        self.used[kind][answer] += 1
        self.left[kind] -= 1


def suite_hash(samples: Sequence[Sample]) -> str:
    """Sixteen hex digits of what is asked and where; tables that quote a suite quote this."""
    return digest("\n".join(f"{s.id}|{s.question}|{s.answer}|{s.boxes}" for s in samples))


def majority(samples: Sequence[Sample], kinds: Sequence[str]) -> dict[str, float]:
    """Kind -> share of its most frequent answer, in the order of `kinds`."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        answers[sample.kind][sample.answer] += 1
    return {
        kind: max(answers[kind].values()) / sum(answers[kind].values()) for kind in kinds if kind in answers
    }
