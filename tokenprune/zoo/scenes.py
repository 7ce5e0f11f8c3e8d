"""Suites of questions about drawn scenes: seeded, balanced, the same on every machine.

    from tokenprune.zoo import scenes
    for sample in scenes.suite("test", n=2250, seed=0):
        sample.image, sample.question, sample.answer, sample.boxes

`test` holds scenes that training can never have drawn (decided by the hash of the scene), `held_out` asks
about colour-shape pairs and words that training never showed, `train` is what training saw.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from . import suites
from .drawing import render
from .layout import Scene, draw_scene
from .questions import CLOSED, KINDS, Question, ask
from .splits import belongs
from .suites import Quota

PER_SCENE = 3  # questions about one picture, of different kinds


@functools.lru_cache(maxsize=64)
def _render(scene: Scene) -> Image.Image:
    return render(scene)


@dataclass(frozen=True)
class Sample(suites.Sample):
    """One question about one picture.

    `boxes`: what has to be seen to answer, (left, top, right, bottom) in pixels of the 224 x 224 picture; empty
    where nothing of the kind is there ("no", "0"). Samples of one scene share the part of `id` before the dash.
    """

    scene: Scene

    @property
    def image(self) -> Image.Image:
        """The picture, RGB, 224 x 224; drawn when asked for."""
        return _render(self.scene).copy()


def _choose(quota: Quota, kind: str, questions: list[Question], rng: random.Random) -> Question | None:
    """The question whose answer was used least so far, if there is room for it."""
    if not questions:
        return None
    rng.shuffle(questions)
    question = min(questions, key=lambda q: quota.used[kind][q.answer])
    if not quota.has_room(kind, question.answer):
        return None
    quota.take(kind, question.answer)
    return question


def suite(split: str = "test", n: int = 2250, seed: int = 0) -> list[Sample]:
    """`n` questions of `split`, equally many of each kind, closed answers evenly spread.

    Up to three questions share a scene. The same (split, n, seed) gives the same suite everywhere.
    """
    rng = suites.generator(split, n, seed)
    # Zero of a held-out thing cannot be asked, which leaves that split one count fewer.
    closed = {**CLOSED, "count": CLOSED["count"] - (split == "held_out")}
    quota, samples, seen = Quota(n, KINDS, closed), [], set()
    while len(samples) < n:
        scene = draw_scene(rng, split)
        if not belongs(scene, split) or scene.key() in seen:
            continue
        open_kinds = [kind for kind in KINDS if quota.left[kind] > 0]
        rng.shuffle(open_kinds)
        picked = 0
        for kind in open_kinds:
            questions = [q for q in ask(scene, kind, rng) if q.held_out == (split == "held_out")]
            question = _choose(quota, kind, questions, rng)
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


suite_hash = suites.suite_hash


def majority(samples: Sequence[Sample]) -> dict[str, float]:
    """Kind -> share of its most frequent answer: what answering without looking can reach."""
    return suites.majority(samples, KINDS)
