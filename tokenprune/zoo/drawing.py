"""Scene -> picture, and scene -> what each patch of the picture shows.

Shapes are drawn at twice the size and averaged down, which gives smooth edges without depending on any
anti-aliasing of the drawing library. Letters use the typeface that ships inside Pillow, never a system font.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .layout import LETTER, PATCH, SIDE, Box, Scene, Thing
from .relations import beside, nearest
from .vocabulary import COLOURS, LETTERS, SHAPES, SIZES

GRID = SIDE // PATCH
SCALE = 2
UNSURE = -1  # label of a patch that shows a sliver only: not to be learnt either way

_COLOUR_INDEX = {name: i for i, name in enumerate(COLOURS)}
_SHAPE_INDEX = {name: i for i, name in enumerate(SHAPES)}
_SIZE_INDEX = {name: i for i, name in enumerate(SIZES)}


def _polygon(shape: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    """Corners of the shapes that have some."""
    if shape == "square":
        a = 0.9 * r
        return [(x - a, y - a), (x + a, y - a), (x + a, y + a), (x - a, y + a)]
    if shape == "triangle":
        return [(x, y - r), (x + r, y + 0.85 * r), (x - r, y + 0.85 * r)]
    if shape == "diamond":
        return [(x, y - r), (x + 0.75 * r, y), (x, y + r), (x - 0.75 * r, y)]
    if shape == "cross":
        a = 0.34 * r
        return [
            (x - a, y - r), (x + a, y - r), (x + a, y - a), (x + r, y - a), (x + r, y + a), (x + a, y + a),
            (x + a, y + r), (x - a, y + r), (x - a, y + a), (x - r, y + a), (x - r, y - a), (x - a, y - a),
        ]  # fmt: skip
    if shape == "star":
        corners = []
        for k in range(10):
            reach = r if k % 2 == 0 else 0.42 * r
            angle = -math.pi / 2 + k * math.pi / 5
            corners.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
        return corners
    raise KeyError(shape)


@functools.cache
def _stamp(shape: str, radius: int) -> Image.Image:
    """The outline of a thing as a mask, (2 radius SCALE) pixels square, 255 inside."""
    r = radius * SCALE
    mask = Image.new("L", (2 * r, 2 * r), 0)
    pen = ImageDraw.Draw(mask)
    if shape in ("circle", "ring", "moon"):
        pen.ellipse((0, 0, 2 * r - 1, 2 * r - 1), fill=255)
        if shape == "ring":
            pen.ellipse((0.55 * r, 0.55 * r, 1.45 * r - 1, 1.45 * r - 1), fill=0)
        if shape == "moon":
            pen.ellipse((0.75 * r, 0.1 * r, 2.45 * r, 1.8 * r), fill=0)
    else:
        pen.polygon([(round(a), round(b)) for a, b in _polygon(shape, r - 0.5, r - 0.5, r - 0.5)], fill=255)
    return mask


@functools.cache
def _glyph(letter: str) -> Image.Image:
    """One capital as a mask of one letter cell at drawing scale."""
    font = ImageFont.load_default(size=18 * SCALE)
    cell = LETTER * SCALE
    mask = Image.new("L", (cell, cell), 0)
    ImageDraw.Draw(mask).text(
        (cell / 2, cell / 2 + 1), letter, fill=255, font=font, anchor="mm", stroke_width=1
    )
    return mask


def background(rng: random.Random, width: int, height: int) -> tuple[Image.Image, int]:
    """A blotchy grey ground with a few faint scratches, and its mean grey level (0..255)."""
    noise = np.random.RandomState(rng.randrange(2**31))  # this generator's stream is frozen by numpy
    level = rng.randint(70, 165)
    coarse = noise.randint(0, 40, (height // 32, width // 32)).astype(np.uint8)
    blotches = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    grain = noise.randint(0, 14, (height, width))
    ground = np.asarray(blotches).astype(np.int32) + grain + (level - 27)
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randint(2, 7)):
        ends = [rng.randrange(side) for side in (width, height, width, height)]
        pen.line(ends, fill=max(0, min(255, level + rng.choice((-1, 1)) * rng.randint(15, 30))))
    return image.convert("RGB"), level


def jitter(rng: random.Random) -> list[int]:
    """How far the paint of one thing is off its colour, red, green and blue."""
    return [rng.randint(-12, 12) for _ in range(3)]


def put(image: Image.Image, thing: Thing, shift: Sequence[int], corner: tuple[int, int] = (0, 0)) -> None:
    """Paint a thing, its colour off by `shift`, on a picture whose top left pixel is `corner` of the scene."""
    colour = tuple(max(0, min(255, c + d)) for c, d in zip(COLOURS[thing.colour], shift))
    left, top, _, _ = thing.box
    image.paste(colour, (left - corner[0], top - corner[1]), _stamp(thing.shape, thing.radius).reduce(SCALE))


def write(image: Image.Image, text: str, x: int, y: int, level: int) -> None:
    """Spell capitals from (x, y), the top left corner of the first, in light ink where the ground's `level` is dark."""
    ink = 245 if level < 118 else 12
    for k, letter in enumerate(text):
        image.paste((ink, ink, ink), (x + k * LETTER, y), _glyph(letter).reduce(SCALE))


def render(scene: Scene, window: Box = (0, 0, SIDE, SIDE)) -> Image.Image:
    """The scene as an RGB picture of 224 x 224 pixels, or the part of it inside `window`."""
    rng = random.Random(scene.paint)
    x0, y0, x1, y1 = window
    image, level = background(rng, x1 - x0, y1 - y0)
    for thing in scene.things:
        put(image, thing, jitter(rng), (x0, y0))
    if scene.word:
        write(image, scene.word.text, scene.word.x - x0, scene.word.y - y0, level)
    return image


@dataclass(frozen=True)
class PatchLabels:
    """What each of the 14 x 14 patches shows; int8 arrays of shape (14, 14), row by row.

    `colour`, `shape`, `size`, `letter`: 1 + index into the vocabulary, 0 for none, `UNSURE` for a sliver.
    `centre`: 1 where a thing's centre lies, which is what makes things countable.
    `left_*`, `near_*`: of the thing to the left of this patch's thing, and of the one nearest to it; `UNSURE`
    where that is a matter of taste.
    """

    colour: np.ndarray
    shape: np.ndarray
    size: np.ndarray
    letter: np.ndarray
    centre: np.ndarray
    left_colour: np.ndarray
    left_shape: np.ndarray
    near_colour: np.ndarray
    near_shape: np.ndarray


@functools.cache
def _coverage(shape: str, radius: int) -> np.ndarray:
    """Boolean picture of the thing's box, (2 r, 2 r)."""
    return np.asarray(_stamp(shape, radius).reduce(SCALE)) > 127


def _neighbour(other: Thing | None, plain: bool) -> tuple[int, int]:
    """Labels of a neighbour's colour and shape."""
    if not plain:
        return UNSURE, UNSURE
    return (0, 0) if other is None else (_COLOUR_INDEX[other.colour] + 1, _SHAPE_INDEX[other.shape] + 1)


def label_patches(scene: Scene) -> PatchLabels:
    """The labels the tower is taught, from geometry alone (no picture is drawn)."""
    colour, shape, size, letter, centre, *around = (np.zeros((GRID, GRID), np.int8) for _ in range(9))
    most = np.zeros((GRID, GRID), np.int32)  # pixels of the thing that covers a patch most
    for thing in scene.things:
        x0, y0, _, _ = thing.box
        rows, columns = np.nonzero(_coverage(thing.shape, thing.radius))
        cells = (rows + y0) // PATCH * GRID + (columns + x0) // PATCH
        pixels = np.bincount(cells, minlength=GRID * GRID).reshape(GRID, GRID)
        middle = (thing.y // PATCH, thing.x // PATCH)
        pixels[middle] = PATCH * PATCH  # a ring's centre shows nothing of it, yet it is the ring's centre
        wins = pixels > most
        sure = pixels >= 24
        names = _COLOUR_INDEX[thing.colour], _SHAPE_INDEX[thing.shape], _SIZE_INDEX[thing.size]
        left, near = beside(scene.things, thing, "left"), nearest(scene.things, thing)
        values = [index + 1 for index in names] + [*_neighbour(*left), *_neighbour(*near)]
        for array, value in zip((colour, shape, size, *around), values):
            array[wins & sure] = value
            array[wins & ~sure] = UNSURE
        most = np.maximum(most, pixels)
        centre[middle] = 1
    if scene.word:
        left, top, right, bottom = scene.word.box
        band = np.s_[top // PATCH : (bottom - 1) // PATCH + 1, left // PATCH : (right - 1) // PATCH + 1]
        letter[band] = UNSURE
        row = (top + LETTER // 2) // PATCH
        for k, character in enumerate(scene.word.text):
            letter[row, (left + k * LETTER + LETTER // 2) // PATCH] = LETTERS.index(character) + 1
    return PatchLabels(colour, shape, size, letter, centre, *around)
