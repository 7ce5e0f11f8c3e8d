"""Text on pictures with the font PIL carries, so that drawings look alike on every machine.

That font (Aileron) has Latin letters only; arrow, tick, cross and times are drawn by hand, anything else it lacks
becomes a box. The full text always stands in the JSON next to a picture.
"""

from __future__ import annotations

import re
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from .palette import INK, Colour

_STROKES = {  # polylines in a unit box whose origin is the top left of an em square
    "→": [[(0.08, 0.62), (0.92, 0.62)], [(0.66, 0.40), (0.92, 0.62), (0.66, 0.84)]],
    "✓": [[(0.10, 0.62), (0.36, 0.88), (0.88, 0.32)]],
    "✗": [[(0.18, 0.36), (0.78, 0.90)], [(0.78, 0.36), (0.18, 0.90)]],
    "×": [[(0.16, 0.46), (0.56, 0.86)], [(0.56, 0.46), (0.16, 0.86)]],
    "□": [[(0.10, 0.36), (0.66, 0.36), (0.66, 0.92), (0.10, 0.92), (0.10, 0.36)]],
}
_WIDTHS = {"→": 1.0, "✓": 1.0, "✗": 1.0, "×": 0.74, "□": 0.76}
_SAME = str.maketrans(
    {"–": "-", "—": "-", "’": "'", "‘": "'", "“": '"', "”": '"', "\n": " ", "\t": " ", "\u00a0": " "}
)


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@lru_cache(maxsize=4096)
def _has(character: str) -> bool:
    """Whether the font draws this character as something else than its box for missing ones."""
    if character.isspace():
        return True
    return _shape(character) != _shape("\uffff")


def _shape(character: str) -> bytes:
    box = Image.new("L", (40, 40))
    ImageDraw.Draw(box).text((0, 0), character, font=font(20), fill=255)
    return box.tobytes()


def _pieces(text: str) -> list[tuple[bool, str]]:
    """Runs of (drawn by hand?, text)."""
    out: list[tuple[bool, str]] = []
    for c in text.translate(_SAME):
        by_hand = c in _STROKES or not _has(c)
        c = "□" if by_hand and c not in _STROKES else c
        if not by_hand and out and not out[-1][0]:
            out[-1] = (False, out[-1][1] + c)
        else:
            out.append((by_hand, c))
    return out


def width(text: str, size: int) -> float:
    """Pixels that `write` will take."""
    return sum(_WIDTHS[t] * size if by_hand else font(size).getlength(t) for by_hand, t in _pieces(text))


def write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, fill: Colour = INK
) -> float:
    """Draw one line with its top left corner at `at`; returns where it ends."""
    x, y = at
    for by_hand, piece in _pieces(text):
        if not by_hand:
            draw.text((x, y), piece, font=font(size), fill=fill)
            x += font(size).getlength(piece)
            continue
        x += _by_hand(draw, (x, y), piece, size, fill)
    return x


def _by_hand(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], glyph: str, size: int, fill: Colour
) -> float:
    """Draw at four times the size and shrink: PIL's own lines are not anti-aliased."""
    big = 4
    box = Image.new("L", (round(size * 1.1) * big, round(size * 1.3) * big))
    pen = ImageDraw.Draw(box)
    for stroke in _STROKES[glyph]:
        pen.line(
            [(x * size * big, y * size * big) for x, y in stroke],
            fill=255,
            width=round(size * big / 9),
            joint="curve",
        )
    mask = box.resize((box.width // big, box.height // big), Image.Resampling.LANCZOS)
    draw.bitmap((round(at[0]), round(at[1])), mask, fill=fill)
    return _WIDTHS[glyph] * size


def shorten(text: str, size: int, room: float) -> str:
    """The text, or as much of it as fits into `room` pixels with three dots behind."""
    text = " ".join(text.split())
    if width(text, size) <= room:
        return text
    while text and width(text + "...", size) > room:
        text = text[:-1]
    return text.rstrip() + "..."


def wrap(text: str, size: int, room: float, lines: int) -> list[str]:
    """At most `lines` lines of words; the last one shortened."""
    out: list[str] = []
    words = text.split()
    while words and len(out) < lines - 1:
        line = words.pop(0)
        while words and width(f"{line} {words[0]}", size) <= room:
            line += " " + words.pop(0)
        out.append(shorten(line, size, room))
    if words:
        out.append(shorten(" ".join(words), size, room))
    return out


def flow(text: str, size: int, room: float) -> list[str]:
    """The whole text in as many lines as it takes; a word wider than `room` is broken. Blanks stay where they are.

    Joined, the lines are the text again, but for line breaks, which end a line and are dropped.
    """
    out: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in re.findall(r"\S*\s*", paragraph):
            if line and width((line + word).rstrip(), size) > room:
                out.append(line)
                line = ""
            while width(word.rstrip(), size) > room and len(word) > 1:
                fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or width(word[:n], size) <= room)
                out.append(word[:fits])
                word = word[fits:]
            line += word
        out.append(line)
    return out
