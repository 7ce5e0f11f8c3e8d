"""A clip as a strip: its frames, what each setting kept of them, and how many tokens of every step as bars.

A scene cut shows as a high bar where a method follows what changes, and as one like the others where it does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from PIL import Image, ImageDraw

from ..tokens import ImageReport
from . import palette
from .cells import kept_by_step
from .lettering import shorten, width, wrap, write
from .overlay import Box, fit, overlay
from .sheet import SCALE, Fact, write_answer, write_facts, write_title

T = TypeVar("T")

LINE = 24
"""Steps side by side; a longer clip goes on in a line below."""
WIDTH = 1500
"""Nominal pixels the steps of a line share: few are drawn larger, many smaller."""
BAR = 34
"""Nominal height of the highest bar of a row."""


@dataclass(frozen=True)
class Kept:
    """What one setting kept of a clip, and answered."""

    method: str
    keep: str
    reports: Sequence[ImageReport]  # of the clip, in order: one, or one for each frame on some models
    answer: str = ""
    good: bool | None = None
    note: str = ""

    @property
    def counts(self) -> list[int]:
        """Tokens kept of every temporal step."""
        return [count for report in self.reports for count in kept_by_step(report)]

    def at(self, step: int) -> tuple[ImageReport, int]:
        """The report of a step, and the frame it is in there."""
        for report in self.reports:
            own = len(kept_by_step(report))
            if step < own:
                return report, step
            step -= own
        raise IndexError(step)


@dataclass(frozen=True)
class Reel:
    """One clip and question with everything that was kept of it."""

    steps: Sequence[Sequence[Image.Image]]  # the frames of each temporal step
    times: Sequence[str]  # of each step, for people
    rows: Sequence[Kept]
    question: str = ""
    facts: list[Fact] = field(default_factory=list)
    box: Box | None = None  # the share of the frames that is read, see `overlay`


def steps_of(frames: Sequence[T], steps: int) -> list[list[T]]:
    """The frames of each of `steps` temporal steps: consecutive ones, equally many, the last step what is left.

    That is how patches of several frames are cut: 5 frames in steps of 2 are 3 steps, of which the last has one.
    """
    each = math.ceil(len(frames) / max(steps, 1))
    return [list(frames[min(i * each, len(frames) - 1) : (i + 1) * each]) for i in range(steps)]


def clip_sheet(reels: Sequence[Reel], *, title: str = "", caption: str = "") -> Image.Image:
    """A page with one band a clip: the frames as they are, then a row for every setting with its bars.

    Frames of one step stand above each other. Bars of a row share a scale, whose top is the row's largest count; the
    thin line across them is what each step would have got if all had got the same.
    """
    sheet = _Strip(reels)
    top = sheet.margin + (round(sheet.em * 2.8) if title else 0)
    bottom = round(2.6 * sheet.small) if caption else sheet.gap
    page = Image.new("RGB", (sheet.width, top + sum(map(sheet.height, reels)) + bottom), palette.PAGE)
    draw = ImageDraw.Draw(page)
    if title:
        write_title(draw, title, sheet.em, sheet.margin, sheet.width)
    y = top
    for place, reel in enumerate(reels):
        if place:
            at = (sheet.margin, y - sheet.gap, sheet.width - sheet.margin, y - sheet.gap)
            draw.line(at, fill=palette.RULE, width=SCALE)
        sheet.reel(page, draw, reel, y)
        y += sheet.height(reel)
    if caption:
        text = shorten(caption, sheet.small, sheet.width - 2 * sheet.margin)
        write(draw, (sheet.margin, y - sheet.gap // 2), text, sheet.small, palette.FAINT)
    return page


class _Strip:
    """The measures of a page, in pixels, and how its bands are set."""

    def __init__(self, reels: Sequence[Reel]) -> None:
        longest = min(max(len(reel.steps) for reel in reels), LINE)
        self.side = round(min(132, max(56, WIDTH / longest))) * SCALE
        self.em, self.small = 15 * SCALE, 13 * SCALE
        self.margin, self.gap, self.step = 30 * SCALE, 16 * SCALE, 21 * SCALE
        self.text, self.pitch = 190 * SCALE, self.side + 6 * SCALE
        self.left = self.margin + self.text + self.gap
        self.width = max(self.left + longest * self.pitch + self.margin, 900 * SCALE)

    def height(self, reel: Reel) -> int:
        lines = math.ceil(len(reel.steps) / LINE)
        head = self.step * (len(self._question(reel)) + bool(reel.facts)) + self.gap // 2
        clip = lines * (self.step + self._picture(reel) + self.gap)
        return head + clip + len(reel.rows) * lines * self._row(reel) + 2 * self.gap

    def _question(self, reel: Reel) -> list[str]:
        return wrap(reel.question, self.em, self.width - 2 * self.margin, 2)

    def _picture(self, reel: Reel) -> int:
        """Height of the frames of one step, above each other."""
        first = reel.steps[0][0]
        each = max(1, round(first.height * self.side / max(first.size)))
        return max(map(len, reel.steps)) * (each + SCALE) - SCALE

    def _row(self, reel: Reel) -> int:
        beside = 4.2 * self.step
        return round(max(self._picture(reel) + BAR * SCALE + 1.4 * self.step, beside)) + self.gap

    def reel(self, page: Image.Image, draw: ImageDraw.ImageDraw, reel: Reel, y: int) -> None:
        for text in self._question(reel):
            write(draw, (self.margin, y), text, self.em)
            y += self.step
        if reel.facts:
            x: float = self.margin
            for fact in reel.facts:  # side by side: a clip has more room across than down
                share = (self.width - 2 * self.margin) / len(reel.facts)
                write_facts(draw, [fact], (x, y), self.small, share - self.gap, self.step)
                x += share
            y += self.step
        y += self.gap // 2
        for start in range(0, len(reel.steps), LINE):
            y += self._frames(page, draw, reel, start, y)
        for row in reel.rows:
            for start in range(0, len(reel.steps), LINE):
                self._kept(page, draw, reel, row, start, y)
                y += self._row(reel)

    def _frames(self, page: Image.Image, draw: ImageDraw.ImageDraw, reel: Reel, start: int, y: int) -> int:
        """The frames as they are, under their times; returns the height taken."""
        write(draw, (self.margin, y + self.step), "the clip" if not start else "", self.em)
        for place, frames in enumerate(reel.steps[start : start + LINE]):
            x = self.left + place * self.pitch
            time = shorten(reel.times[start + place], self.small, self.side)
            write(draw, (x, y), time, self.small, palette.FAINT)
            self._stack(page, draw, [fit(frame, self.side) for frame in frames], x, y + self.step)
        return self.step + self._picture(reel) + self.gap

    def _stack(
        self, page: Image.Image, draw: ImageDraw.ImageDraw, frames: Sequence[Image.Image], x: int, y: int
    ) -> None:
        for frame in frames:
            page.paste(frame, (x, y))
            draw.rectangle((x, y, x + frame.width - 1, y + frame.height - 1), outline=palette.RULE)
            y += frame.height + SCALE

    def _kept(
        self, page: Image.Image, draw: ImageDraw.ImageDraw, reel: Reel, row: Kept, start: int, y: int
    ) -> None:
        counts = row.counts
        if start == 0:
            self._beside(draw, row, y)
        base = y + self._picture(reel) + (BAR + 5) * SCALE
        most, even = max(max(counts), 1), sum(counts) / max(len(counts), 1)
        for place, frames in enumerate(reel.steps[start : start + LINE]):
            x, step = self.left + place * self.pitch, start + place
            report, own = row.at(step)
            drawn = [overlay(frame, report, side=self.side, box=reel.box, frame=own) for frame in frames]
            self._stack(page, draw, drawn, x, y)
            high = counts[step] / most * BAR * SCALE
            across = drawn[0].width
            draw.line((x, base, x + across - 1, base), fill=palette.RULE, width=SCALE)
            if counts[step]:
                bar = (x + across * 0.2, base - max(high, SCALE), x + across * 0.8, base)
                draw.rectangle(bar, fill=palette.EDGE)
            level = base - even / most * BAR * SCALE
            draw.line((x, level, x + across - 1, level), fill=palette.FAINT, width=1)
            number = str(counts[step])
            at = (x + (across - width(number, self.small)) / 2, base + 3 * SCALE)
            write(draw, at, number, self.small, palette.INK if counts[step] else palette.FAINT)

    def _beside(self, draw: ImageDraw.ImageDraw, row: Kept, y: int) -> None:
        before, after = (sum(getattr(r, k) for r in row.reports) for k in ("before", "after"))
        write(draw, (self.margin, y), shorten(row.method, self.em, self.text), self.em)
        lines = [row.keep, row.note or f"{before} → {after} tokens"]
        for text in filter(None, lines):
            y += self.step
            write(draw, (self.margin, y), shorten(text, self.small, self.text), self.small, palette.FAINT)
        if row.answer or row.good is not None:
            write_answer(draw, (self.margin, y + self.step), row.answer, row.good, self.em, self.text)
