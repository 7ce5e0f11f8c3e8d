"""A moving gaze on paper: a few decode steps side by side, a row for every focal layer, the answer growing beneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from PIL import Image, ImageDraw

from . import palette
from .gaze import View, panel, shown_layers, tokens_of
from .lettering import shorten, wrap, write
from .looks import Look, evenly
from .overlay import fit
from .sheet import SCALE, Fact, write_facts, write_title
from .writing import LEADING, in_the_making

STEPS = 8
"""Decode steps of a strip; of more, so many evenly chosen ones, the first and the last always."""


@dataclass(frozen=True)
class Gazing:
    """One question, and the steps in which it was answered."""

    views: Sequence[View]
    looks: Sequence[Look]
    question: str
    keep: str = ""
    facts: list[Fact] = field(default_factory=list)  # (label, text, good)


def gaze_strip(
    stories: Sequence[Gazing], *, title: str = "", caption: str = "", side: int = 150
) -> Image.Image:
    """A page with one band a question. `side` is the nominal longer edge of a picture.

    A band's columns are decode steps (`STEPS` at most), its rows the focal layers (`gaze.LAYERS` at most); lit is
    what that layer chose in that step, and beneath stands the answer with the words of the step marked.
    """
    sheet = _Stills([story for story in stories if story.looks], side * SCALE)
    top = sheet.margin + (round(sheet.em * 2.8) if title else 0)
    bottom = round(2.6 * sheet.small) if caption else sheet.gap
    page = Image.new("RGB", (sheet.width, top + sum(sheet.heights) + bottom), palette.PAGE)
    draw = ImageDraw.Draw(page)
    if title:
        write_title(draw, title, sheet.em, sheet.margin, sheet.width)
    y = top
    for band, height in zip(sheet.bands, sheet.heights, strict=True):
        if y > top:
            line = (sheet.margin, y - sheet.gap, sheet.width - sheet.margin, y - sheet.gap)
            draw.line(line, fill=palette.RULE, width=SCALE)
        sheet.band(page, draw, band, y)
        y += height
    if caption:
        room = sheet.width - 2 * sheet.margin
        at = (sheet.margin, y - sheet.gap // 2)
        write(draw, at, shorten(caption, sheet.small, room), sheet.small, palette.FAINT)
    return page


@dataclass(frozen=True)
class _Band:
    story: Gazing
    looks: list[Look]
    layers: list[int]
    views: list[View]
    cell: tuple[int, int]  # size of a panel


class _Stills:
    """The measures of a page, in pixels, and how its bands are set."""

    def __init__(self, stories: Sequence[Gazing], side: int) -> None:
        self.side = side
        self.em, self.small = round(side / 10), round(side / 11.5)
        self.gap, self.margin = round(side * 0.12), round(side * 0.2)
        self.step = round(self.em * LEADING)
        self.text = round(side * 1.25)
        self.left = self.margin + self.text + self.gap
        self.bands = [self._measured(story) for story in stories]
        self.pitch = side + self.gap
        most = max((len(band.looks) for band in self.bands), default=1)
        self.width = self.left + max(most, 5) * self.pitch - self.gap + self.margin
        self.heights = [self._height(band) for band in self.bands]

    def _measured(self, story: Gazing) -> _Band:
        views = [replace(view, image=fit(view.image, self.side)) for view in story.views]
        layers = shown_layers(story.looks)
        size = panel(views, story.looks[0], layers[0], self.side).size
        return _Band(story, evenly(story.looks, STEPS), layers, views, size)

    def _height(self, band: _Band) -> int:
        drawn = self.step + len(band.layers) * (band.cell[1] + self.step + self.gap // 2)
        beside = self.step * (len(self._question(band)) + len(band.story.facts) + 4)
        return max(drawn + 2 * self.step, beside) + 3 * self.gap

    def _question(self, band: _Band) -> list[str]:
        return wrap(band.story.question, self.em, self.text, 5)

    def band(self, page: Image.Image, draw: ImageDraw.ImageDraw, band: _Band, y: int) -> None:
        self._beside(draw, band, y)
        for column, look in enumerate(band.looks):
            x, line = self.left + column * self.pitch, y
            write(draw, (x, line), f"step {look.step + 1}", self.small, palette.FAINT)
            line += self.step
            for layer in band.layers:
                drawn = panel(band.views, look, layer, self.side)
                page.paste(drawn, (x, line))
                box = (x, line, x + drawn.width - 1, line + drawn.height - 1)
                draw.rectangle(box, outline=palette.RULE)
                line += band.cell[1]
                if column == 0:
                    write(draw, (x, line + SCALE * 2), f"layer {layer}", self.small)
                line += self.step + self.gap // 2
            in_the_making(draw, (x, line), look, self.em, self.side, 2)

    def _beside(self, draw: ImageDraw.ImageDraw, band: _Band, y: int) -> None:
        line = y
        for text in self._question(band):
            write(draw, (self.margin, line), text, self.em)
            line += self.step
        line += self.step // 2
        story = band.story
        read = {
            len([i for own in look.chosen.get(layer, []) for i in own])
            for look in story.looks
            for layer in look.chosen
        }
        least, most = min(read), max(read)
        span = f"{most}" if least == most else f"{least} to {most}"
        told = [
            story.keep,
            f"looks at {span} of {tokens_of(story.views)} tokens",
            f"{len(band.looks)} of {len(story.looks)} steps" if len(band.looks) < len(story.looks) else "",
        ]
        for text in filter(None, told):
            write(draw, (self.margin, line), shorten(text, self.small, self.text), self.small, palette.FAINT)
            line += self.step
        write_facts(draw, story.facts, (self.margin, line), self.small, self.text, self.step)
