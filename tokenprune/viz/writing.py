"""An answer in the making: the text so far, with what was written last marked like with a felt pen."""

from __future__ import annotations

from PIL import ImageDraw

from . import palette
from .lettering import flow, width, write
from .looks import Look

END = "(end)"
LEADING = 1.42  # from one line to the next, in sizes


def in_the_making(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], look: Look, size: int, room: float, lines: int
) -> None:
    """The last `lines` lines of the answer after a step, in a column `room` pixels wide, its newest piece marked.

    The end token shows as a pale word behind the text.
    """
    text = flow(look.after, size, room - (width(END, size) + size / 2 if look.ends else 0)) or [""]
    old = sum(len(line) for line in text) - len("".join(look.piece.splitlines()))
    x, y = at
    for number, line in enumerate(text):
        fresh = max(0, min(len(line), old))  # where in this line the newest piece begins
        old -= len(line)
        if number < len(text) - lines:
            continue
        x = at[0] + width(line[:fresh], size)
        if line[fresh:].strip():
            begin = x + width(line[fresh:], size) - width(line[fresh:].lstrip(), size)
            mark = (begin - size / 8, y, x + width(line[fresh:].rstrip(), size) + size / 8, y + size * 1.3)
            draw.rounded_rectangle(mark, radius=size / 5, fill=palette.MARK)
        x = write(draw, (at[0], y), line.rstrip(), size)
        y += size * LEADING
    if look.ends:
        write(draw, (x + (size / 3 if look.after else 0), y - size * LEADING), END, size, palette.FAINT)
