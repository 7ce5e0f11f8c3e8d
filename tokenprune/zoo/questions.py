"""What can be asked about a scene, and how a balanced set of questions is drawn.

A question is asked only where its answer is plain: a reference fits one thing, a place is not on the line
between two ninths, the nearest thing is nearer by half. Answers of closed kinds (yes or no, counts, places,
sizes, ...) are balanced exactly in the suites, so that guessing does not pay.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .layout import SIDE, Box, Scene, Thing
from .relations import beside, nearest
from .vocabulary import COLOURS, HELD_OUT_PAIRS, HELD_OUT_WORDS, PLACES, SHAPES, SIZES

MOST = 4  # the largest count that is asked for
BORDER = 6  # pixels between a thing's centre and the line between two ninths of the picture


@dataclass(frozen=True)
class Question:
    """A question with its answer; `boxes` cover what has to be seen (empty where the answer is "no" or 0).

    `subjects` names the things or the word involved, which tells what belongs to the held-out split.
    """

    kind: str
    text: str
    answer: str
    boxes: tuple[Box, ...]
    subjects: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        return any(subject in _HELD_OUT_NAMES for subject in self.subjects)


_HELD_OUT_NAMES = {f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS} | set(HELD_OUT_WORDS)


def _unique(things: tuple[Thing, ...], of: Callable[[Thing], object]) -> list[Thing]:
    counts = Counter(map(of, things))
    return [thing for thing in things if counts[of(thing)] == 1]


def _colour(scene: Scene, _: random.Random) -> Iterator[Question]:
    plain = _unique(scene.things, lambda t: t.shape)
    for thing in _unique(scene.things, lambda t: (t.size, t.shape)):
        reference = thing.shape if thing in plain else f"{thing.size} {thing.shape}"
        yield Question(
            "colour", f"what colour is the {reference}?", thing.colour, (thing.box,), (thing.name,)
        )


def _shape(scene: Scene, _: random.Random) -> Iterator[Question]:
    plain = _unique(scene.things, lambda t: t.colour)
    for thing in _unique(scene.things, lambda t: (t.size, t.colour)):
        reference = thing.colour if thing in plain else f"{thing.size} {thing.colour}"
        yield Question(
            "shape", f"what shape is the {reference} object?", thing.shape, (thing.box,), (thing.name,)
        )


def _size(scene: Scene, _: random.Random) -> Iterator[Question]:
    for thing in _unique(scene.things, lambda t: t.pair):
        yield Question("size", f"what size is the {thing.name}?", thing.size, (thing.box,), (thing.name,))


def _count(scene: Scene, _: random.Random) -> Iterator[Question]:
    asked = [(plural, lambda t, s=shape: t.shape == s) for shape, plural in SHAPES.items()]
    asked += [(f"{colour} objects", lambda t, c=colour: t.colour == c) for colour in COLOURS]
    for plural, fits in asked:
        found = [thing for thing in scene.things if fits(thing)]
        if len(found) <= MOST:
            text = f"how many {plural} are there?"
            boxes, names = tuple(t.box for t in found), tuple(t.name for t in found)
            yield Question("count", text, str(len(found)), boxes, names)


def _exist(scene: Scene, rng: random.Random) -> Iterator[Question]:
    """As many "no" as "yes"; three "no" in four name a colour and a shape that both stand in the scene."""
    present = {thing.pair for thing in scene.things}
    near = [(a.colour, b.shape) for a in scene.things for b in scene.things]
    new = any(thing.pair in HELD_OUT_PAIRS for thing in scene.things)
    for pair in sorted(present):
        boxes = tuple(t.box for t in scene.things if t.pair == pair)
        name = " ".join(pair)
        yield Question("exist", f"is there {article(name)} {name}?", "yes", boxes, (name,))
        for _ in range(20):
            other = (
                rng.choice(near)
                if rng.random() < 0.75
                else (rng.choice(list(COLOURS)), rng.choice(list(SHAPES)))
            )
            if other not in present and (new or other not in HELD_OUT_PAIRS):
                name = " ".join(other)
                yield Question("exist", f"is there {article(name)} {name}?", "no", (), (name,))
                break


def article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def _place(scene: Scene, _: random.Random) -> Iterator[Question]:
    third = SIDE / 3
    for thing in _unique(scene.things, lambda t: t.pair):
        if all(abs(v - line) >= BORDER for v in (thing.x, thing.y) for line in (third, 2 * third)):
            place = PLACES[int(thing.y // third) * 3 + int(thing.x // third)]
            yield Question("place", f"where is the {thing.name}?", place, (thing.box,), (thing.name,))


def _beside(side: str) -> Callable[[Scene, random.Random], Iterator[Question]]:
    words = f"{side} of" if side in ("left", "right") else side

    def asker(scene: Scene, _: random.Random) -> Iterator[Question]:
        for thing in _unique(scene.things, lambda t: t.pair):
            other, plain = beside(scene.things, thing, side)
            if plain and other is not None:
                text = f"what is {words} the {thing.name}?"
                yield Question(side, text, other.name, (thing.box, other.box), (thing.name, other.name))

    return asker


def _nearest(scene: Scene, _: random.Random) -> Iterator[Question]:
    for thing in _unique(scene.things, lambda t: t.pair):
        other, plain = nearest(scene.things, thing)
        if plain and other is not None:
            text = f"what is nearest to the {thing.name}?"
            yield Question("nearest", text, other.name, (thing.box, other.box), (thing.name, other.name))


def _read(scene: Scene, _: random.Random) -> Iterator[Question]:
    if scene.word:
        yield Question(
            "read", "what word is written?", scene.word.text, (scene.word.box,), (scene.word.text,)
        )


_ASKERS: dict[str, Callable[[Scene, random.Random], Iterator[Question]]] = {
    "colour": _colour,
    "shape": _shape,
    "size": _size,
    "count": _count,
    "exist": _exist,
    "place": _place,
    "left": _beside("left"),
    "nearest": _nearest,
    "read": _read,
}
KINDS: tuple[str, ...] = tuple(_ASKERS)

#: Asked in training beside the others, because all four sides teach where things are better than one does.
TRAINING_KINDS: tuple[str, ...] = (*KINDS, "right", "above", "below")
_ASKERS |= {side: _beside(side) for side in ("right", "above", "below")}

#: Kinds whose answers come from a short list, with the length of the list: these are balanced exactly.
CLOSED: dict[str, int] = {
    "colour": len(COLOURS),
    "shape": len(SHAPES),
    "size": len(SIZES),
    "count": MOST + 1,
    "exist": 2,
    "place": len(PLACES),
}


def ask(scene: Scene, kind: str, rng: random.Random) -> list[Question]:
    """Every question of `kind` that the scene answers plainly."""
    return list(_ASKERS[kind](scene, rng))
