"""Seeded scenes: where coloured shapes and a word stand on a 224 x 224 picture.

A scene is a small frozen description; `drawing` turns it into pixels, `questions` asks about it. The
description alone decides everything, so its hash (`Scene.key`) tells two scenes apart on any machine,
whatever the version of the drawing library.

Things are small (18 to 44 of 224 pixels) and several, and references need colour *and* shape, because a
picture that can be answered from a few random tokens would not tell a good pruning method from a bad one.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from .splits import check_split, digest
from .vocabulary import COLOURS, HELD_OUT_PAIRS, HELD_OUT_WORDS, LETTERS, SHAPES, SIZES, TRAIN_WORDS

SIDE = 224  # pixels
PATCH = 16  # pixels
LETTER = 16  # pixels from one letter to the next
GAP = 5  # least pixels between the boxes of two things

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, right and bottom exclusive."""


@dataclass(frozen=True)
class Thing:
    """One coloured shape; `x`, `y` its centre and `radius` half its width, in pixels."""

    colour: str
    shape: str
    size: str
    x: int
    y: int
    radius: int

    @property
    def box(self) -> Box:
        return (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)

    @property
    def pair(self) -> tuple[str, str]:
        return (self.colour, self.shape)

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Word:
    """Capital letters in a row, one every `LETTER` pixels; `x`, `y` the top left corner of the first cell."""

    text: str
    x: int
    y: int

    @property
    def box(self) -> Box:
        return (self.x, self.y, self.x + LETTER * len(self.text), self.y + LETTER)


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows. `paint` seeds what carries no meaning: background, colour jitter, glyph ink."""

    things: tuple[Thing, ...]
    word: Word | None
    paint: int = field(default=0)

    def key(self) -> str:
        """Sixteen hex digits of the content, blind to paint and to the order of the things."""
        content = (sorted(map(repr, self.things)), repr(self.word))
        return digest(repr(content))


def _apart(a: Box, b: Box, gap: int) -> bool:
    return a[2] + gap <= b[0] or b[2] + gap <= a[0] or a[3] + gap <= b[1] or b[3] + gap <= a[1]


def _inside(box: Box, window: Box) -> bool:
    return (
        box[0] >= window[0] + 2
        and box[1] >= window[1] + 2
        and box[2] <= window[2] - 2
        and box[3] <= window[3] - 2
    )


def _draw_pair(rng: random.Random, held_out: bool) -> tuple[str, str]:
    if held_out:
        return rng.choice(sorted(HELD_OUT_PAIRS))
    while True:
        pair = (rng.choice(list(COLOURS)), rng.choice(list(SHAPES)))
        if pair not in HELD_OUT_PAIRS:
            return pair


def _draw_pairs(rng: random.Random, split: str) -> list[tuple[str, str]]:
    """Colour-shape pairs of 4 to 7 things; often with a repeated shape or colour, so that counts vary."""
    total = rng.randint(4, 7)
    pairs: list[tuple[str, str]] = []
    if rng.random() < 0.6:
        shared = _draw_pair(rng, False)
        by_shape = rng.random() < 0.5
        for _ in range(rng.randint(2, 4)):
            pair = _draw_pair(rng, False)
            pair = (pair[0], shared[1]) if by_shape else (shared[0], pair[1])
            if pair not in HELD_OUT_PAIRS:
                pairs.append(pair)
    while len(pairs) < total:
        pairs.append(_draw_pair(rng, split == "held_out" and rng.random() < 0.5))
    rng.shuffle(pairs)
    return pairs


def _draw_text(rng: random.Random, split: str) -> str:
    """Training mixes words with strings of random letters: reading must not become recalling."""
    if split == "held_out":
        return rng.choice(HELD_OUT_WORDS)
    if split == "test" or rng.random() < 0.4:
        return rng.choice(TRAIN_WORDS)
    while True:
        text = "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 5)))
        if text not in HELD_OUT_WORDS:
            return text


def _place_word(rng: random.Random, text: str, window: Box) -> Word:
    """Near the patch grid, up to 3 pixels off: a letter then has one patch that shows most of it."""
    left, top, right, bottom = window
    column = rng.randint(0, (right - left) // PATCH - len(text) - 1)
    row = rng.randint(0, (bottom - top) // PATCH - 2)
    x = left + max(2, column * PATCH + rng.randint(-3, 3))
    y = top + max(2, row * PATCH + rng.randint(-3, 3))
    return Word(text, x, y)


def _place_thing(
    rng: random.Random, pair: tuple[str, str], things: list[Thing], taken: list[Box], window: Box
) -> Thing | None:
    """A free spot; a third of the time beside a thing that already stands, so that relations occur."""
    size = rng.choice(list(SIZES))
    radius = rng.randint(*SIZES[size])
    left, top, right, bottom = window
    beside = things and rng.random() < 0.35
    for _ in range(30):
        if beside:
            other = rng.choice(things)
            reach = radius + other.radius + GAP + rng.randint(1, 10)
            if rng.random() < 0.5:
                x, y = other.x + rng.choice((-1, 1)) * reach, other.y + rng.randint(-8, 8)
            else:
                angle = rng.random() * 2 * math.pi
                x = other.x + round(1.2 * reach * math.cos(angle))
                y = other.y + round(1.2 * reach * math.sin(angle))
        else:
            x = rng.randint(left + radius + 2, right - radius - 2)
            y = rng.randint(top + radius + 2, bottom - radius - 2)
        thing = Thing(*pair, size, x, y, radius)
        if _inside(thing.box, window) and all(_apart(thing.box, box, GAP) for box in taken):
            return thing
    return None


def draw_scene(rng: random.Random, split: str = "train", window: Box = (0, 0, SIDE, SIDE)) -> Scene:
    """One random scene of `split`. Things that find no room are left out; at least three always stand.

    `window`, on patch borders, confines it to a part of the picture: the first lessons are small and crowded.
    """
    check_split(split)
    while True:
        word = _place_word(rng, _draw_text(rng, split), window) if rng.random() < 0.6 else None
        taken = [word.box] if word else []
        things: list[Thing] = []
        for pair in _draw_pairs(rng, split):
            thing = _place_thing(rng, pair, things, taken, window)
            if thing is not None:
                things.append(thing)
                taken.append(thing.box)
        new = any(thing.pair in HELD_OUT_PAIRS for thing in things) or word is not None
        if len(things) >= 3 and (split != "held_out" or new):
            return Scene(tuple(things), word, rng.randrange(2**31))
