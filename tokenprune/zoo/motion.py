"""Seeded clips: sixteen frames of 128 x 128 pixels in which coloured shapes move, appear, blink, merge or change.

A clip is a small frozen description, as a scene is; `clips` draws it and asks about it. Frames are four a second and
two make one time step of `tiny-qwen`, so a clip is 8 x 64 visual tokens. Cuts, blinks and flashes fall on even frames.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

from .layout import Thing, _draw_pair, _draw_text
from .splits import check_split, digest
from .vocabulary import COLOURS, HELD_OUT_PAIRS

FRAMES = 16
SIDE = 128  # pixels
RATE = 4  # frames a second
PLOTS = "motion appear blink cut change flash merge".split()
WAYS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Actor:
    """A thing with a course: at (x, y) + frame * (vx, vy), seen in the frames of `shown`, painted `later` from frame
    `turn` on. All in pixels and frames."""

    colour: str
    shape: str
    radius: int
    x: int
    y: int
    vx: float = 0.0
    vy: float = 0.0
    shown: tuple[tuple[int, int], ...] = ((0, FRAMES),)
    later: str = ""
    turn: int = FRAMES
    stop: int = FRAMES

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    def at(self, frame: int) -> Thing | None:
        """The thing it is in a frame, or None where it is not seen."""
        if not any(first <= frame < last for first, last in self.shown):
            return None
        steps = min(frame, self.stop)
        colour = self.later if self.later and frame >= self.turn else self.colour
        x, y = round(self.x + steps * self.vx), round(self.y + steps * self.vy)
        return Thing(colour, self.shape, "medium", x, y, self.radius)


@dataclass(frozen=True)
class Clip:
    """`plot`: what it is about; `word`: (text, x, y, first frame, frame after the last) or None; `cut`: first frame
    after a scene cut, 0 for none; `pan`: pixels the ground moves a frame; `fade`: "in", "out" or "". `way`: where the
    first actor goes. `paint` seeds what carries no meaning."""

    plot: str
    actors: tuple[Actor, ...]
    word: tuple[str, int, int, int, int] | None = None
    cut: int = 0
    pan: tuple[int, int] = (0, 0)
    fade: str = ""
    way: str = ""
    paint: int = 0

    def things(self, frame: int) -> list[Thing]:
        """What is seen in a frame; later ones lie above earlier ones."""
        return [thing for thing in (actor.at(frame) for actor in self.actors) if thing is not None]

    def text(self, frame: int) -> str:
        return self.word[0] if self.word and self.word[3] <= frame < self.word[4] else ""

    def key(self) -> str:
        """Sixteen hex digits of the content, blind to paint."""
        content = (self.plot, self.actors, self.word, self.cut, self.way)
        return digest(repr(content))


class _Stage:
    """A 3 x 3 floor plan on which actors get places and names of their own."""

    def __init__(self, rng: random.Random, split: str) -> None:
        self.rng, self.split = rng, split
        self.used: set[tuple[str, str]] = set()
        self.spots = [(x, y) for x in range(3) for y in range(3)]
        rng.shuffle(self.spots)

    def pair(self) -> tuple[str, str]:
        """A colour and a shape, both new on this stage."""
        while True:
            pair = _draw_pair(self.rng, self.split == "held_out" and self.rng.random() < 0.5)
            if all(pair[0] != c and pair[1] != s for c, s in self.used):
                self.used.add(pair)
                return pair

    def place(self, spot: tuple[int, int] | None = None) -> tuple[int, int]:
        x, y = spot or self.spots.pop()
        return 22 + 42 * x + self.rng.randint(-4, 4), 22 + 42 * y + self.rng.randint(-4, 4)

    def actor(self, spot: tuple[int, int] | None = None, **course) -> Actor:
        x, y = self.place(spot)
        return Actor(*self.pair(), self.rng.randint(13, 15), x, y, **course)

    def still(self, low: int, high: int) -> list[Actor]:
        return [self.actor() for _ in range(self.rng.randint(low, high))]


def _motion(stage: _Stage) -> dict:
    """One thing crosses the picture in a lane of its own, one or two stand still."""
    way = stage.rng.choice(list(WAYS))
    dx, dy = WAYS[way]
    lane, speed = stage.rng.randrange(3), stage.rng.uniform(3.6, 5.4)
    start = 0 if dx + dy > 0 else 2
    stage.spots = [s for s in stage.spots if s[1 if dx else 0] != lane]
    mover = stage.actor((start, lane) if dx else (lane, start), vx=dx * speed, vy=dy * speed)
    return {"actors": (mover, *stage.still(1, 2)), "way": way}


def _appear(stage: _Stage) -> dict:
    """Two things come into an empty or half empty picture, at least two time steps apart."""
    first = 2 * stage.rng.randint(1, 3)
    second = first + 2 * stage.rng.randint(2, 3)
    comers = [stage.actor(shown=((when, FRAMES),)) for when in (first, second)]
    return {"actors": (*comers, *stage.still(0, 1))}


def _blink(stage: _Stage) -> dict:
    """One thing goes out for half a second, one to three times; others shine on."""
    times = stage.rng.randint(1, 3)
    while True:
        gaps = sorted(stage.rng.sample(range(1, 7), times))
        if all(b - a >= 2 for a, b in itertools.pairwise(gaps)):
            break
    edges = [0, *(edge for gap in gaps for edge in (2 * gap, 2 * gap + 2)), FRAMES]
    shown = tuple(zip(edges[::2], edges[1::2]))
    return {"actors": (stage.actor(shown=shown), *stage.still(1, 2))}


def _cut(stage: _Stage) -> dict:
    """One thing before the cut, another after it."""
    cut = 2 * stage.rng.randint(2, 5)
    before = stage.actor(shown=((0, cut),))
    behind = [stage.actor(shown=((cut, FRAMES),)) for _ in range(stage.rng.randint(1, 2))]
    return {"actors": (before, *behind), "cut": cut}


def _change(stage: _Stage) -> dict:
    """All stand still; in half of the clips one of them takes another colour or goes away."""
    actors = stage.still(2, 3)
    turn, kind = 2 * stage.rng.randint(2, 5), stage.rng.choice(("", "", "colour", "leave"))
    one = actors[0]
    if kind == "colour":
        others = [c for c in COLOURS if c != one.colour and (c, one.shape) not in HELD_OUT_PAIRS]
        later = stage.rng.choice(others)
        actors[0] = Actor(one.colour, one.shape, one.radius, one.x, one.y, later=later, turn=turn)
    elif kind == "leave":
        actors[0] = Actor(one.colour, one.shape, one.radius, one.x, one.y, shown=((0, turn),))
    return {"actors": tuple(actors)}


def _flash(stage: _Stage) -> dict:
    """A word of three letters is there for a second or less."""
    while len(text := _draw_text(stage.rng, stage.split)) != 3:
        pass
    start = 2 * stage.rng.randint(1, 5)
    row = stage.rng.randrange(3)
    stage.spots = [s for s in stage.spots if s[1] != row]
    x, y = 16 * stage.rng.randint(0, 4) + 4, 16 * (1 + 3 * row - (row == 2)) + stage.rng.randint(-2, 2)
    return {
        "actors": tuple(stage.still(1, 2)),
        "word": (text, x, y, start, start + 2 * stage.rng.randint(1, 2)),
    }


def _merge(stage: _Stage) -> dict:
    """Two things approach each other in a row; in half of the clips they become one, else they stop apart."""
    row, merges = stage.rng.randrange(3), stage.rng.random() < 0.5
    stage.spots = [s for s in stage.spots if s[1] != row]
    left = stage.actor((0, row))
    (x, _), pair = stage.place((2, row)), stage.pair()
    stop = 2 * stage.rng.randint(4, 6)
    reach = (x - left.x) / 2 if merges else (x - left.x) / 2 - 22
    moved = [
        Actor(left.colour, left.shape, left.radius, left.x, left.y, vx=reach / stop, stop=stop),
        Actor(
            *pair,
            left.radius,
            x,
            left.y,
            vx=-reach / stop,
            stop=stop,
            shown=((0, stop if merges else FRAMES),),
        ),
    ]
    return {"actors": (*moved, *stage.still(0, 1)), "way": "together" if merges else "apart"}


_PLOTS: dict[str, Callable[[_Stage], dict]] = {
    "motion": _motion,
    "appear": _appear,
    "blink": _blink,
    "cut": _cut,
    "change": _change,
    "flash": _flash,
    "merge": _merge,
}


def draw_clip(rng: random.Random, split: str = "train", plot: str | None = None) -> Clip:
    """One random clip of `split`; a third each pans or fades."""
    check_split(split)
    plot = plot or rng.choice(PLOTS)
    parts = _PLOTS[plot](_Stage(rng, split))
    pan = (rng.choice((-1, 1)), rng.choice((-1, 0, 1))) if rng.random() < 0.3 else (0, 0)
    fade = rng.choice(("in", "out")) if rng.random() < 0.3 else ""
    return Clip(plot, **parts, pan=pan, fade=fade, paint=rng.randrange(2**31))
