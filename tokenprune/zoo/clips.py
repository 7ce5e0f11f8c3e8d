"""Suites of questions about drawn clips: seeded, balanced, the same on every machine.

    from tokenprune.zoo import clips
    for sample in clips.suite("test", n=280, seed=0):
        sample.frames, sample.timestamps, sample.question, sample.answer

Splits are those of the scenes: `test` holds clips that training can never have drawn, `held_out` uses colour-shape
pairs and words that training never showed.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .drawing import SCALE, _background, _glyph, _stamp
from .layout import LETTER, SPLITS, Box
from .motion import FRAMES, RATE, SIDE, WAYS, Clip, draw_clip, is_test_clip
from .questions import Question
from .vocabulary import COLOURS

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
    image, level = _background(rng, side, side)
    return np.asarray(image), level


def render(clip: Clip) -> list[Image.Image]:
    """The frames, RGB, 128 x 128."""
    rng = random.Random(clip.paint)
    noise = np.random.RandomState(rng.randrange(2**31))  # this generator's stream is frozen by numpy
    grounds = [_ground(rng, clip) for _ in range(2 if clip.cut else 1)]
    jitter = [[rng.randint(-12, 12) for _ in range(3)] for _ in clip.actors]
    frames = []
    for number in range(FRAMES):
        ground, level = grounds[-1 if clip.cut and number >= clip.cut else 0]
        middle = (len(ground) - SIDE) // 2
        left, top = (middle + (number - FRAMES // 2) * step for step in clip.pan)
        left, top = (max(0, min(len(ground) - SIDE, v)) for v in (left, top))
        frame = Image.fromarray(ground[top : top + SIDE, left : left + SIDE].copy())
        for actor, shift in zip(clip.actors, jitter):
            thing = actor.at(number)
            if thing is not None:
                colour = tuple(max(0, min(255, c + d)) for c, d in zip(COLOURS[thing.colour], shift))
                frame.paste(colour, thing.box[:2], _stamp(thing.shape, thing.radius).reduce(SCALE))
        if text := clip.text(number):
            ink = 245 if level < 118 else 12
            assert clip.word is not None
            for k, letter in enumerate(text):
                corner = (clip.word[1] + k * LETTER, clip.word[2])
                frame.paste((ink, ink, ink), corner, _glyph(letter).reduce(SCALE))
        share = {"in": min(1.0, 0.4 + 0.15 * number), "out": min(1.0, 0.4 + 0.15 * (FRAMES - 1 - number))}
        light = share.get(clip.fade, 1.0)
        pixels = np.asarray(frame, np.float32) * light + noise.randint(-5, 6, (SIDE, SIDE, 1))
        frames.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return frames


@functools.lru_cache(maxsize=16)
def _render(clip: Clip) -> tuple[Image.Image, ...]:
    return tuple(render(clip))


@dataclass(frozen=True)
class Sample:
    """One question about one clip.

    `boxes`: what has to be seen, (left, top, right, bottom) in pixels of the frame in which it first shows; empty
    where nothing of the kind is there ("no").
    """

    id: str
    question: str
    answer: str
    kind: str
    boxes: tuple[Box, ...]
    split: str
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

    @property
    def box(self) -> Box | None:
        return self.boxes[0] if self.boxes else None


def _fits(clip: Clip, question: Question, split: str) -> bool:
    if split == "held_out":
        return question.held_out
    return is_test_clip(clip) == (split == "test")


def suite(split: str = "test", n: int = 280, seed: int = 0) -> list[Sample]:
    """`n` questions of `split`, equally many of each kind, closed answers evenly spread, each about its own clip.

    The same (split, n, seed) gives the same suite everywhere.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    rng = random.Random(f"clips/{split}/{n}/{seed}")
    used: dict[str, Counter[str]] = defaultdict(Counter)
    share = {kind: n // len(KINDS) + (i < n % len(KINDS)) for i, kind in enumerate(KINDS)}
    samples, seen = [], set()
    for number in range(n):
        kind = KINDS[number % len(KINDS)]
        while True:
            clip = draw_clip(rng, split, PLOT_OF[kind])
            question = ask(clip, rng)
            most = -(-share[kind] // CLOSED[kind]) if kind in CLOSED else n
            fresh = clip.key() not in seen and used[kind][question.answer] < most
            if fresh and _fits(clip, question, split):
                break
        used[kind][question.answer] += 1
        seen.add(clip.key())
        name = f"{clip.key()}-{kind}"
        samples.append(Sample(name, question.text, question.answer, kind, question.boxes, split, clip))
    return samples


def suite_hash(samples: Sequence[Sample]) -> str:
    """Sixteen hex digits of what is asked and where; tables that quote a suite quote this."""
    lines = [f"{s.id}|{s.question}|{s.answer}|{s.boxes}" for s in samples]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def majority(samples: Sequence[Sample]) -> dict[str, float]:
    """Kind -> share of its most frequent answer: what answering without looking can reach."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        answers[sample.kind][sample.answer] += 1
    return {
        kind: max(answers[kind].values()) / sum(answers[kind].values()) for kind in KINDS if kind in answers
    }
