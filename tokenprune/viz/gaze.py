"""A moving gaze as an animation: the picture with what a decode step looked at, the answer growing beneath it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..errors import InputError
from ..tokens import ImageReport
from . import palette
from .lettering import shorten, width, write
from .looks import Look, evenly, focus
from .overlay import Box, fit, overlay
from .writing import LEADING, in_the_making

LAYERS = 3
"""Focal layers drawn side by side; of more, the first, the last and one between."""
FRAMES = 120
"""Steps of one animation; of more, so many evenly chosen ones."""
WIDTH, SIDE = 1120, 460  # most pixels of a page across, and of a picture's longer edge
STEP_MS, LAST_MS = 450, 2500


@dataclass(frozen=True)
class View:
    """A picture as one image of the report saw it; a clip has one for each of its temporal steps."""

    image: Image.Image
    report: ImageReport
    place: int = 0  # of that image among the images of its row
    frame: int = 0  # temporal step
    box: Box | None = None  # see `overlay`


def shown_layers(looks: Sequence[Look]) -> list[int]:
    """The focal layers that are drawn, ascending."""
    return evenly(sorted({layer for look in looks for layer in look.chosen}), LAYERS)


def panel(views: Sequence[View], look: Look, layer: int, side: int) -> Image.Image:
    """What one focal layer chose in one step: cells lit in their picture, or in all views of a clip set in rows."""
    columns = math.ceil(math.sqrt(len(views)))
    gap = max(2, side // 90) if len(views) > 1 else 0
    small = (side - (columns - 1) * gap) // columns
    chosen = look.chosen.get(layer, [])
    drawn = [
        overlay(
            view.image,
            focus(view.report, chosen[view.place] if view.place < len(chosen) else []),
            side=small,
            box=view.box,
            frame=view.frame,
        )
        for view in views
    ]
    if len(drawn) == 1:
        return drawn[0]
    across, down = max(d.width for d in drawn), max(d.height for d in drawn)
    rows = math.ceil(len(drawn) / columns)
    page = Image.new("RGB", (columns * (across + gap) - gap, rows * (down + gap) - gap), palette.PAGE)
    for place, one in enumerate(drawn):
        page.paste(one, ((place % columns) * (across + gap), (place // columns) * (down + gap)))
    return page


class GazePage:
    """The measures of one animation. `boxes`: where each focal layer's panel lies, (left, top, right, bottom)."""

    def __init__(
        self, views: Sequence[View], looks: Sequence[Look], *, method: str, keep: str = "", question: str = ""
    ) -> None:
        if not looks or not views:
            raise InputError("no decode step to draw: nothing was looked at after the prefill")
        self.looks, self.layers = list(looks), shown_layers(looks)
        self.method, self.keep, self.question = method, keep, question
        self.em, self.small, self.margin, self.gap = 18, 15, 24, 18
        room = WIDTH - 2 * self.margin - (len(self.layers) - 1) * self.gap
        side = min(SIDE, room // len(self.layers))
        self.side = side
        # Shrunk once: a large picture would be again for every panel of every step.
        self.views = [replace(view, image=fit(view.image, side)) for view in views]
        size = panel(self.views, looks[0], self.layers[0], side).size
        self.top = self.margin + round(self.em * (3.2 if question else 1.9))
        self.width = max(2 * self.margin + len(self.layers) * (size[0] + self.gap) - self.gap, 560)
        left = (self.width - len(self.layers) * (size[0] + self.gap) + self.gap) // 2
        self.boxes = {
            layer: (x, self.top, x + size[0], self.top + size[1])
            for layer, x in ((k, left + i * (size[0] + self.gap)) for i, k in enumerate(self.layers))
        }
        self.under = self.top + size[1]
        written = self.under + round(self.small * 2) + self.gap
        self.lines = 3 if len(looks[-1].after) > 40 else 2
        self.height = written + round(self.em * (0.8 + LEADING * self.lines)) + self.margin
        self.written = written

    def frame(self, place: int) -> Image.Image:
        """The page of the step at `place` of `looks`."""
        look = self.looks[place]
        page = Image.new("RGB", (self.width, self.height), palette.PAGE)
        draw = ImageDraw.Draw(page)
        self._head(draw, look)
        for layer, (left, top, right, bottom) in self.boxes.items():
            page.paste(panel(self.views, look, layer, self.side), (left, top))
            draw.rectangle((left, top, right - 1, bottom - 1), outline=palette.RULE)
            after = write(draw, (left, self.under + self.small * 0.5), f"layer {layer}", self.small)
            count = shorten(self._count(look, layer), self.small, right - after - self.small / 2)
            write(
                draw,
                (after + self.small / 2, self.under + self.small * 0.5),
                count,
                self.small,
                palette.FAINT,
            )
        self._progress(draw, place)
        room = self.width - 2 * self.margin
        in_the_making(draw, (self.margin, self.written + self.em * 0.8), look, self.em, room, self.lines)
        return page

    def _head(self, draw: ImageDraw.ImageDraw, look: Look) -> None:
        number = f"step {look.step + 1} of {self.looks[-1].step + 1}"
        end = self.width - self.margin
        write(draw, (end - width(number, self.em), self.margin), number, self.em)
        room = end - self.margin - width(number, self.em) - self.em
        after = write(draw, (self.margin, self.margin), shorten(self.method, self.em, room / 2), self.em)
        write(
            draw,
            (after + self.em / 2, self.margin),
            shorten(self.keep, self.em, room / 2 - self.em),
            self.em,
            palette.FAINT,
        )
        if self.question:
            line = shorten(self.question, self.small, end - self.margin)
            write(draw, (self.margin, self.margin + self.em * 1.45), line, self.small, palette.FAINT)

    def _count(self, look: Look, layer: int) -> str:
        return f"looks at {sum(map(len, look.chosen.get(layer, [])))} of {tokens_of(self.views)}"

    def _progress(self, draw: ImageDraw.ImageDraw, place: int) -> None:
        left, right, y = self.margin, self.width - self.margin, self.written
        draw.rounded_rectangle((left, y, right, y + 3), radius=2, fill=palette.RULE)
        share = (place + 1) / len(self.looks)
        draw.rounded_rectangle((left, y, left + (right - left) * share, y + 3), radius=2, fill=palette.EDGE)


def tokens_of(views: Sequence[View]) -> int:
    """Visual tokens of all images that are shown."""
    return sum({view.place: view.report.before for view in views}.values())


def save_gif(page: GazePage, path: Path, tick: Callable[[], None] | None = None) -> None:
    """Write the animation, one frame a step (`FRAMES` at most), for ever from the beginning.

    All frames share one palette, so that a cell that does not change does not flicker. `OSError` when it cannot be
    written.
    """
    places = evenly(range(len(page.looks)), FRAMES)
    colours = _palette(page)
    frames = []
    for place in places:
        frames.append(_indexed(page.frame(place), colours))
        if tick is not None:
            tick()
    times = [STEP_MS] * (len(frames) - 1) + [LAST_MS]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)


def _palette(page: GazePage) -> Image.Image:
    """256 colours: those of the page with its letters' soft edges, and the rest for the picture, lit and dimmed."""
    fixed: list[tuple[int, int, int]] = []
    for ink, ground in (
        (palette.INK, palette.PAGE),
        (palette.FAINT, palette.PAGE),
        (palette.INK, palette.MARK),
        (palette.EDGE, palette.RULE),
    ):
        for share in np.linspace(0, 1, 6):
            fixed.append(tuple(round(a + (b - a) * float(share)) for a, b in zip(ground, ink, strict=True)))  # type: ignore[arg-type]
    fixed = list(dict.fromkeys([*fixed, *palette.SHADES]))
    layer, places = page.layers[0], max(view.place for view in page.views) + 1
    sizes = {view.place: view.report.before for view in page.views}
    every = [list(range(sizes.get(place, 0))) for place in range(places)]
    both = [panel(page.views, Look(0, {layer: chosen}), layer, page.side) for chosen in (every, [])]
    sample = Image.new("RGB", (both[0].width, 2 * both[0].height))
    for place, drawn in enumerate(both):
        sample.paste(drawn, (0, place * drawn.height))
    rest = sample.quantize(256 - len(fixed)).getpalette() or []
    out = Image.new("P", (1, 1))
    out.putpalette([*np.array(fixed).flatten().tolist(), *rest])
    return out


def _indexed(page: Image.Image, colours: Image.Image) -> Image.Image:
    """The page in the colours of a palette image whose first one is the paper's."""
    out = page.quantize(palette=colours, dither=Image.Dither.NONE)
    # PIL takes a colour near enough for the nearest one: paper would come out as the picture's lightest grey.
    paper = (np.asarray(page) == palette.PAGE).all(-1)
    out.paste(0, mask=Image.fromarray(paper))
    return out
