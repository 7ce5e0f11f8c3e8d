"""Page -> picture, and page -> what each cell of 16 x 16 pixels shows.

The typefaces are cuts of DejaVu (`fonts/`, with their licence) and the one inside Pillow; never a system font.
"""

from __future__ import annotations

import functools
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .pages import CELL, CHARACTERS, Page

FONTS = Path(__file__).parent / "fonts"
FILES = {
    "sans": "DejaVuSans.ttf",
    "sans bold": "DejaVuSans-Bold.ttf",
    "mono": "DejaVuSansMono.ttf",
    "mono bold": "DejaVuSansMono-Bold.ttf",
    "serif": "DejaVuSerif.ttf",
    "serif bold": "DejaVuSerif-Bold.ttf",
}
START, SPACE, TURN = len(CHARACTERS) + 1, len(CHARACTERS) + 2, len(CHARACTERS) + 3
"""Codes beside 1 + index into CHARACTERS: nothing before it, a space before it, the turn of a line before it."""
SAME, GAP, LINE_END, PAGE_END = 1, 2, 3, 4
"""What follows a character: another one, a space, the end of its line, the end of the page."""
FIELDS = {"char": len(CHARACTERS), "before": TURN, "before2": TURN, "after": PAGE_END}

_CODES = {c: i + 1 for i, c in enumerate(CHARACTERS)} | {" ": SPACE, "\n": TURN}


@functools.cache
def _font(face: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if face == "pillow":
        return ImageFont.load_default(size=size)
    return ImageFont.truetype(FONTS / FILES[face], size, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def _glyph(face: str, size: int, character: str) -> tuple[np.ndarray, int]:
    """Ink of one character, float32 0..1, centred left to right, and the row of its top seen from the middle of a
    capital. Points and dashes keep their height on the line."""
    font = _font(face, size)
    top, bottom = font.getbbox("H", anchor="ls")[1::2]
    left, high, right, low = font.getbbox(character, anchor="ls")
    width, height = max(1, round(right - left)), max(1, round(low - high))
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).text((-left, -high), character, fill=255, font=font, anchor="ls")
    return np.asarray(mask, np.float32) / 255, round(high - (top + bottom) / 2)


def render(page: Page) -> Image.Image:
    """The page as an RGB picture of 16 x 16 pixels a cell."""
    rng = random.Random(page.paint)
    noise = np.random.RandomState(rng.randrange(2**31))  # this generator's stream is frozen by numpy
    height, width = page.rows * CELL, page.columns * CELL
    ink = np.zeros((height, width), np.float32)
    for row, left, right in page.rules:
        y = (row + 1) * CELL + CELL // 2 - 1
        if y < height:
            step = rng.choice((1, 1, 4))  # solid or dashed
            ink[y, left * CELL : right * CELL] = (np.arange((right - left) * CELL) // 4 % step == 0)[
                : width - left * CELL
            ]
    for line in page.lines:
        for piece in line:
            for k, character in enumerate(piece.text):
                if character == " ":
                    continue
                glyph, up = _glyph(piece.face, piece.size, character)
                x = (piece.column + k * piece.pitch) * CELL + CELL // 2 + piece.dx - glyph.shape[1] // 2
                y = piece.row * CELL + CELL // 2 + piece.dy + up
                x0, y0, x1, y1 = (
                    max(x, 0),
                    max(y, 0),
                    min(x + glyph.shape[1], width),
                    min(y + glyph.shape[0], height),
                )
                if x1 > x0 and y1 > y0:
                    part = ink[y0:y1, x0:x1]
                    np.maximum(part, glyph[y0 - y : y1 - y, x0 - x : x1 - x], out=part)
    paper = np.array([rng.randint(205, 255) - rng.randint(0, 12) * (c == 2) for c in range(3)], np.float32)
    pen = np.array([rng.randint(0, 70) for _ in range(3)], np.float32)
    grain = noise.randint(-6, 7, (height, width, 1))
    picture = paper + (pen - paper) * ink[..., None] + grain
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def label_cells(page: Page) -> dict[str, np.ndarray]:
    """What each cell shows, int8 (rows, columns), 0 where it shows no character.

    `char`: 1 + index into CHARACTERS. `before`, `before2`: what is read one and two steps before it, which makes a
    place on the page findable from what was written last. `after`: what follows it.
    """
    labels = {name: np.zeros((page.rows, page.columns), np.int8) for name in FIELDS}
    for number, line in enumerate(page.lines):
        spots = [(c, p.row, p.column + k * p.pitch) for i, p in enumerate(line) for k, c in enumerate(p.text)]
        starts = {
            sum(len(p.text) for p in line[:i]) for i in range(1, len(line))
        }  # a piece begins: a space before
        text: list[tuple[str, int, int]] = []
        for k, spot in enumerate(spots):
            if k in starts:
                text.append((" ", -1, -1))
            text.append(spot)
        codes = [START, START if number == 0 else TURN] + [_CODES[c] for c, _, _ in text]
        for k, (character, row, column) in enumerate(text):
            if character == " ":
                continue
            labels["char"][row, column] = codes[k + 2]
            labels["before"][row, column], labels["before2"][row, column] = codes[k + 1], codes[k]
            last = k + 1 == len(text)
            end = PAGE_END if number + 1 == len(page.lines) else LINE_END
            labels["after"][row, column] = end if last else GAP if text[k + 1][0] == " " else SAME
    return labels
