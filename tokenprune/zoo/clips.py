"""Suites of questions about drawn clips: seeded, balanced, the same on every machine.

    from tokenprune.zoo import clips
    for sample in clips.suite("test", n=280, seed=0):
        sample.frames, sample.timestamps, sample.question, sample.answer

Splits are those of the scenes: `test` holds clips that training can never have drawn, `held_out` uses colour-shape
pairs and words that training never showed.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import suites
from .drawing import background, jitter, put, write
from .layout import LETTER, Box
from .motion import FRAMES, RATE, SIDE, WAYS, Clip, draw_clip
from .questions import Question
from .splits import belongs
from .suites import Quota

#: Kind of question -> the plot it is asked about.
PLOT_OF = {
    "direction": "motion",
    "order": "appear",
    "often": "blink",
    "before": "cut",
    "change": "change",
    "flash": "flash",
    "merge": "merge",
}
KINDS: tuple[str, ...] = tuple(PLOT_OF)
CLOSED = {"direction": len(WAYS), "often": 3, "change": 2, "merge": 2}


def _box(clip: Clip, number: int, frame: int) -> Box:
    thing = clip.actors[number].at(frame)
    assert thing is not None
    left, top, right, bottom = thing.box
    return (max(0, left), max(0, top), min(SIDE, right), min(SIDE, bottom))


def ask(clip: Clip, rng: random.Random) -> Question:
    """The question this clip is about. Boxes are those of the frame in which the thing is first seen."""
    kind = next(kind for kind, plot in PLOT_OF.items() if plot == clip.plot)
    first = clip.actors[0]
    if kind == "direction":
        return Question(
            kind, f"which way does the {first.name} move?", clip.way, (_box(clip, 0, 0),), (first.name,)
        )
    if kind == "order":
        number = rng.randrange(2)
        actor = clip.actors[number]
        box = _box(clip, number, actor.shown[0][0])
        return Question(kind, f"what appears {('first', 'last')[number]}?", actor.name, (box,), (actor.name,))
    if kind == "often":
        times = str(len(first.shown) - 1)
        text = f"how many times does the {first.name} blink?"
        return Question(kind, text, times, (_box(clip, 0, 0),), (first.name,))
    if kind == "before":
        return Question(
            kind, "what was there before the cut?", first.name, (_box(clip, 0, 0),), (first.name,)
        )
    if kind == "change":
        changes = bool(first.later) or first.shown[0][1] < FRAMES
        return Question(kind, "does anything change?", "yes" if changes else "no",
                        (_box(clip, 0, 0),) if changes else (), (first.name,))  # fmt: skip
    if kind == "flash":
        assert clip.word is not None
        text, x, y, _, _ = clip.word
        box = (x, y, x + LETTER * len(text), y + LETTER)
        return Question(kind, "what text flashes by?", text, (box,), (text,))
    boxes = tuple(_box(clip, k, 0) for k in range(2))
    answer = "yes" if clip.way == "together" else "no"
    return Question(kind, "do two things merge?", answer, boxes, tuple(a.name for a in clip.actors[:2]))


def _ground(rng: random.Random, clip: Clip) -> tuple[np.ndarray, int]:
    reach = max(map(abs, clip.pan)) * FRAMES
    side = -(-(SIDE + 2 * reach) // 32) * 32
    image, level = background(rng, side, side)
    return np.asarray(image), level


def render(clip: Clip) -> list[Image.Image]:
    """The frames, RGB, 128 x 128."""
    rng = random.Random(clip.paint)
    noise = np.random.RandomState(rng.randrange(2**31))  # this generator's stream is frozen by numpy
    grounds = [_ground(rng, clip) for _ in range(2 if clip.cut else 1)]
    shifts = [jitter(rng) for _ in clip.actors]
    frames = []
    for number in range(FRAMES):
        ground, level = grounds[-1 if clip.cut and number >= clip.cut else 0]
        middle = (len(ground) - SIDE) // 2
        left, top = (middle + (number - FRAMES // 2) * step for step in clip.pan)
        left, top = (max(0, min(len(ground) - SIDE, v)) for v in (left, top))
        frame = Image.fromarray(ground[top : top + SIDE, left : left + SIDE].copy())
        for actor, shift in zip(clip.actors, shifts):
            thing = actor.at(number)
            if thing is not None:
                put(frame, thing, shift)
        if clip.word:
            write(frame, clip.text(number), *clip.word[1:3], level)
        share = {"in": min(1.0, 0.4 + 0.15 * number), "out": min(1.0, 0.4 + 0.15 * (FRAMES - 1 - number))}
        light = share.get(clip.fade, 1.0)
        pixels = np.asarray(frame, np.float32) * light + noise.randint(-5, 6, (SIDE, SIDE, 1))
        frames.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return frames


@functools.lru_cache(maxsize=16)
def _render(clip: Clip) -> tuple[Image.Image, ...]:
    return tuple(render(clip))


@dataclass(frozen=True)
class Sample(suites.Sample):
    """One question about one clip.

    `boxes`: what has to be seen, (left, top, right, bottom) in pixels of the frame in which it first shows; empty
    where nothing of the kind is there ("no").
    """

    clip: Clip

    @property
    def frames(self) -> list[Image.Image]:
        """Sixteen RGB pictures, 128 x 128; drawn when asked for."""
        return [frame.copy() for frame in _render(self.clip)]

    @property
    def timestamps(self) -> list[float]:
        """When each frame is shown, in seconds."""
        return [number / RATE for number in range(FRAMES)]

    @property
    def fps(self) -> float:
        return float(RATE)

    @property
    def image(self) -> Image.Image:
        """The frame in the middle, for those who want one picture."""
        return _render(self.clip)[FRAMES // 2].copy()


def suite(split: str = "test", n: int = 280, seed: int = 0) -> list[Sample]:
    """`n` questions of `split`, equally many of each kind, closed answers evenly spread, each about its own clip.

    The same (split, n, seed) gives the same suite everywhere.
    """
    rng = suites.generator(split, n, seed, "clips/")
    quota, samples, seen = Quota(n, KINDS, CLOSED), [], set()
    for number in range(n):
        kind = KINDS[number % len(KINDS)]
        while True:
            clip = draw_clip(rng, split, PLOT_OF[kind])
            question = ask(clip, rng)
            fits = belongs(clip, split) and (question.held_out or split != "held_out")
            if fits and clip.key() not in seen and quota.has_room(kind, question.answer):
                break
        quota.take(kind, question.answer)
        seen.add(clip.key())
        name = f"{clip.key()}-{kind}"
        samples.append(Sample(name, question.text, question.answer, kind, question.boxes, split, clip))
    return samples


suite_hash = suites.suite_hash


def majority(samples: Sequence[Sample]) -> dict[str, float]:
    """Kind -> share of its most frequent answer: what answering without looking can reach."""
    return suites.majority(samples, KINDS)
