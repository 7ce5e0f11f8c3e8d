"""Which thing stands beside another, and which is nearest, with room on both sides of every threshold.

Both questions and patch labels ask here, so that what the tower is taught is what is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .layout import Thing

#: Side -> direction (dx, dy), y downwards.
SIDES = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
REACH, LEVEL = 80, 14  # pixels: beside means this near, and this level
FAR, SLANT = 100, 34  # pixels: what lies within these could be meant by somebody


def beside(things: Sequence[Thing], thing: Thing, side: str) -> tuple[Thing | None, bool]:
    """The thing on that side of `thing`, or None, and whether that is plain to see."""
    along_x, along_y = SIDES[side]
    clear, possible = [], []
    for other in things:
        dx, dy = other.x - thing.x, other.y - thing.y
        ahead, off = dx * along_x + dy * along_y, abs(dx * along_y + dy * along_x)
        if 0 < ahead <= FAR and off <= SLANT:
            possible.append(other)
            if ahead <= REACH and off <= LEVEL:
                clear.append(other)
    if not possible:
        return None, True
    return (clear[0], True) if len(clear) == len(possible) == 1 else (None, False)


def nearest(things: Sequence[Thing], thing: Thing) -> tuple[Thing | None, bool]:
    """The nearest other thing, and whether that is plain: within 64 pixels, the next one half as far again."""
    if len(things) < 3:
        return None, False  # too few to be a question
    others = [(math.dist((thing.x, thing.y), (o.x, o.y)), o) for o in things if o is not thing]
    (first, other), (second, _) = sorted(others, key=lambda pair: pair[0])[:2]
    return other, first <= 64 and second >= 1.5 * first
