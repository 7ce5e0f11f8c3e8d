"""Suites of questions about drawn scenes: seeded, balanced, the same on every machine.

    from tokenprune.zoo import scenes
    for sample in scenes.suite("test", n=2250, seed=0):
        sample.image, sample.question, sample.answer, sample.boxes

`test` holds scenes that training can never have drawn (decided by the hash of the scene), `held_out` asks
about colour-shape pairs and words that training never showed, `train` is what training saw.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections import Counter, defaultdict
from dataclasses import dataclass

from PIL import Image

from .drawing import render
from .layout import SPLITS, Box, Scene, draw_scene, is_test_scene
from .questions import CLOSED, KINDS, Question, ask

PER_SCENE = 3  # questions about one picture, of different kinds


@functools.lru_cache(maxsize=64)
def _render(scene: Scene) -> Image.Image:
    return render(scene)


@dataclass(frozen=True)
class Sample:
    """One question about one picture.

    `boxes`: what has to be seen to answer, (left, top, right, bottom) in pixels of the 224 x 224 picture; empty
    where nothing of the kind is there ("no", "0"). Samples of one scene share the part of `id` before the dash.
    """

    id: str
    question: str
    answer: str
    kind: str
    boxes: tuple[Box, ...]
    split: str
    scene: Scene

    @property
    def image(self) -> Image.Image:
        """The picture, RGB, 224 x 224; drawn when asked for."""
        return _render(self.scene).copy()

    @property
    def box(self) -> Box | None:
        """The box of the thing the question names first."""
        return self.boxes[0] if self.boxes else None


def _belongs(scene: Scene, split: str) -> bool:
    return split == "held_out" or is_test_scene(scene) == (split == "test")


class _Quota:
    """How often each kind, and each answer of a kind, may still be asked."""

    def __init__(self, n: int) -> None:
        self.left = {kind: n // len(KINDS) + (i < n % len(KINDS)) for i, kind in enumerate(KINDS)}
        self._most = {kind: -(-self.left[kind] // count) for kind, count in CLOSED.items()}
        self._used: dict[str, Counter[str]] = defaultdict(Counter)

    def choose(self, kind: str, questions: list[Question], rng: random.Random) -> Question | None:
        """The question whose answer was used least so far, if there is room for it."""
        if not questions:
            return None
        used = self._used[kind]
        rng.shuffle(questions)
        question = min(questions, key=lambda q: used[q.answer])
        # Zero of a held-out thing cannot be asked, which leaves that split one count fewer.
        if kind in self._most and used[question.answer] >= self._most[kind]:
            return None
        used[question.answer] += 1
        self.left[kind] -= 1
        return question


def suite(split: str = "test", n: int = 2250, seed: int = 0) -> list[Sample]:
    """`n` questions of `split`, equally many of each kind, closed answers evenly spread.

    Up to three questions share a scene. The same (split, n, seed) gives the same suite everywhere.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    rng = random.Random(f"{split}/{n}/{seed}")
    quota, samples, seen = _Quota(n), [], set()
    if split == "held_out":
        quota._most["count"] = -(-quota.left["count"] // (CLOSED["count"] - 1))
    while len(samples) < n:
        scene = draw_scene(rng, split)
        if not _belongs(scene, split) or scene.key() in seen:
            continue
        open_kinds = [kind for kind in KINDS if quota.left[kind] > 0]
        rng.shuffle(open_kinds)
        picked = 0
        for kind in open_kinds:
            questions = [q for q in ask(scene, kind, rng) if q.held_out == (split == "held_out")]
            question = quota.choose(kind, questions, rng)
            if question is not None:
                name = f"{scene.key()}-{kind}"
                samples.append(
                    Sample(name, question.text, question.answer, kind, question.boxes, split, scene)
                )
                seen.add(scene.key())
                picked += 1
            if picked == PER_SCENE:
                break
    return samples


def suite_hash(samples: list[Sample]) -> str:
    """Sixteen hex digits of what is asked and where; tables that quote a suite quote this."""
    lines = [f"{s.id}|{s.question}|{s.answer}|{s.boxes}" for s in samples]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def majority(samples: list[Sample]) -> dict[str, float]:
    """Kind -> share of its most frequent answer: what answering without looking can reach."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        answers[sample.kind][sample.answer] += 1
    return {
        kind: max(answers[kind].values()) / sum(answers[kind].values()) for kind in KINDS if kind in answers
    }
