"""Pictures set on a page: one with a title strip, and the sheet that shows methods side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from ..tokens import ImageReport
from . import palette
from .lettering import shorten, width, wrap, write
from .overlay import Box, fit, overlay

SCALE = 2
"""Pages are drawn at twice their nominal size: sharp on dense screens and in print."""


Fact = tuple[str, str, bool | None]
"""Something said beside a picture: a pale label, the text, and whether that is good."""


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet. Without a report it is shown whole."""

    report: ImageReport | None = None
    answer: str = ""
    good: bool | None = None  # a tick or a cross in front of the answer
    heat: bool = False
    note: str = ""  # above the answer; by default the token counts

    @property
    def caption(self) -> str:
        if self.note or self.report is None or self.heat:
            return self.note
        return f"{self.report.before} → {self.report.after} tokens"


@dataclass(frozen=True)
class SheetRow:
    """One picture and question: what was asked, a few facts beside it, and a cell for every column."""

    image: Image.Image
    question: str
    cells: list[Cell | None]
    facts: list[Fact] = field(default_factory=list)
    box: Box | None = None  # the share of the picture that is read, see `overlay`
    marks: list[Box] = field(default_factory=list)  # what is asked about, in the picture's own pixels


def titled(
    image: Image.Image,
    report: ImageReport,
    *,
    method: str,
    keep: str,
    answer: str = "",
    good: bool | None = None,
    question: str = "",
    side: int = 448,
    heat: bool = False,
    box: Box | None = None,
) -> Image.Image:
    """An overlay under a strip that says method, keep, tokens before and after, and the answer."""
    side *= SCALE
    picture = overlay(image, report, side=side, heat=heat, box=box)
    em, pad = 17 * SCALE, 12 * SCALE
    lines = wrap(question, em - 3 * SCALE, side - 2 * pad, 2) if question else []
    step = round(em * 1.45)
    strip = 2 * pad + step * (1 + len(lines) + bool(answer))
    page = Image.new("RGB", (side, strip + picture.height), palette.PAGE)
    draw = ImageDraw.Draw(page)
    numbers = f"{report.before} → {report.after} tokens"
    after = write(draw, (pad, pad), shorten(method, em, side / 2), em)
    write(draw, (after + em * 0.6, pad), keep, em, palette.FAINT)
    write(draw, (side - pad - width(numbers, em), pad), numbers, em, palette.INK)
    y = pad + step
    for line in lines:
        write(draw, (pad, y), line, em - 3 * SCALE, palette.FAINT)
        y += step
    if answer:
        write_answer(draw, (pad, y), answer, good, em, side - 2 * pad)
    page.paste(picture, ((side - picture.width) // 2, strip))
    return page


def write_title(draw: ImageDraw.ImageDraw, title: str, em: int, margin: int, across: int) -> None:
    """The large line on top of a page `across` pixels wide."""
    big = round(em * 1.5)
    write(draw, (margin, margin), shorten(title, big, across - 2 * margin), big)


def write_facts(
    draw: ImageDraw.ImageDraw, facts: list[Fact], at: tuple[float, float], size: int, room: float, step: int
) -> float:
    """One line a fact, from `at` downwards in a column of `room` pixels; returns where the next one would stand."""
    x, y = at
    for label, text, good in facts:
        after = write(draw, (x, y), label + " ", size, palette.FAINT)
        write_answer(draw, (after, y), text, good, size, room + x - after)
        y += step
    return y


def write_answer(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, good: bool | None, em: int, room: float
) -> None:
    colour = palette.INK if good is None else palette.GOOD if good else palette.BAD
    x, y = at
    if good is not None:
        write(draw, (x, y), "✓" if good else "✗", em, colour)
        x, room = x + em * 1.25, room - em * 1.25
    write(draw, (x, y), shorten(text or "(nothing)", em, room), em, colour)


def contact_sheet(
    rows: list[SheetRow],
    columns: list[tuple[str, str]],
    *,
    title: str = "",
    caption: str = "",
    side: int = 150,
) -> Image.Image:
    """One row a picture, one column a (method, keep) pair; columns of one method stand under one heading.

    `rows[i].cells[j]` belongs to `columns[j]`; None leaves the place empty. `side` is the nominal edge of a cell.
    """
    sheet = _Sheet(columns, side * SCALE)
    heights = [sheet.row_height(row) for row in rows]
    top = sheet.top(title)
    bottom = round(2.6 * sheet.small) if caption else sheet.gap
    page = Image.new("RGB", (sheet.width, top + sum(heights) + bottom), palette.PAGE)
    draw = ImageDraw.Draw(page)
    sheet.head(draw, title)
    y = top
    for i, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if i:
            at = y - sheet.gap
            draw.line((sheet.margin, at, sheet.width - sheet.margin, at), fill=palette.RULE, width=SCALE)
        sheet.row(page, draw, row, y)
        y += height
    if caption:
        at = (sheet.margin, y - sheet.gap // 2)
        write(
            draw,
            at,
            shorten(caption, sheet.small, sheet.width - 2 * sheet.margin),
            sheet.small,
            palette.FAINT,
        )
    return page


class _Sheet:
    """The measures of a page, in pixels, and how its rows are set."""

    def __init__(self, columns: list[tuple[str, str]], side: int) -> None:
        self.columns, self.side = columns, side
        self.em, self.small = round(side / 10), round(side / 11.5)
        self.gap, self.margin = round(side * 0.12), round(side * 0.2)
        self.step = round(self.em * 1.4)
        self.text = round(side * 1.25)  # the column of questions
        x = self.margin + self.text + self.gap
        self.full, self.x = x, []
        x += side + 2 * self.gap
        for i, (method, _) in enumerate(columns):
            x += self.gap if i and method != columns[i - 1][0] else 0
            self.x.append(x)
            x += side + self.gap // 2
        self.width = x - self.gap // 2 + self.margin

    def top(self, title: str) -> int:
        return self.margin + (round(self.em * 2.4) if title else 0) + self.step * 2 + self.gap

    def row_height(self, row: SheetRow) -> int:
        picture = max(1, round(row.image.height * self.side / max(row.image.size)))
        beside = self.step * (len(self._question(row)) + len(row.facts)) + self.step // 2
        return max(picture + 2 * self.step + self.gap // 2, beside) + 2 * self.gap

    def _question(self, row: SheetRow) -> list[str]:
        return wrap(row.question, self.em, self.text, 5)

    def head(self, draw: ImageDraw.ImageDraw, title: str) -> None:
        y = self.margin
        if title:
            write_title(draw, title, self.em, self.margin, self.width)
            y += round(self.em * 2.4)
        self._heading(draw, self.full, self.full + self.side, "unpruned", y)
        write(draw, (self.full, y + self.step), "every token", self.small, palette.FAINT)
        for i, (method, keep) in enumerate(self.columns):
            if i == 0 or method != self.columns[i - 1][0]:
                last = max(
                    j
                    for j in range(i, len(self.columns))
                    if all(m == method for m, _ in self.columns[i : j + 1])
                )
                self._heading(draw, self.x[i], self.x[last] + self.side, method, y)
            write(
                draw,
                (self.x[i], y + self.step),
                shorten(keep, self.small, self.side),
                self.small,
                palette.FAINT,
            )

    def _heading(self, draw: ImageDraw.ImageDraw, left: int, right: int, text: str, y: int) -> None:
        size = round(self.em * 1.15)
        write(draw, (left, y), shorten(text, size, right - left), size)
        at = y + self.step - SCALE * 2
        draw.line((left, at, right, at), fill=palette.INK, width=SCALE)

    def row(self, page: Image.Image, draw: ImageDraw.ImageDraw, row: SheetRow, y: int) -> None:
        line = y
        for text in self._question(row):
            write(draw, (self.margin, line), text, self.em)
            line += self.step
        line += self.step // 2
        write_facts(draw, row.facts, (self.margin, line), self.small, self.text, self.step)
        left = self.cell(page, draw, row, Cell(), self.full, y)
        scale = self.side / max(row.image.size)
        for mark in row.marks:
            x0, y0, x1, y1 = (v * scale for v in mark)
            frame = (left + x0 - 2 * SCALE, y + y0 - 2 * SCALE, left + x1 + 2 * SCALE, y + y1 + 2 * SCALE)
            draw.rounded_rectangle(frame, radius=4 * SCALE, outline=palette.EDGE, width=SCALE)
        for x, cell in zip(self.x, row.cells, strict=True):
            if cell is not None:
                self.cell(page, draw, row, cell, x, y)

    def cell(
        self, page: Image.Image, draw: ImageDraw.ImageDraw, row: SheetRow, cell: Cell, x: int, y: int
    ) -> int:
        """Set one cell with its captions; returns where the picture's left edge came to lie."""
        if cell.report is None:
            picture = fit(row.image, self.side)
        else:
            picture = overlay(row.image, cell.report, side=self.side, heat=cell.heat, box=row.box)
        left = x + (self.side - picture.width) // 2
        page.paste(picture, (left, y))
        draw.rectangle((left, y, left + picture.width - 1, y + picture.height - 1), outline=palette.RULE)
        line = y + picture.height + self.gap // 3
        if cell.caption:
            write(draw, (x, line), shorten(cell.caption, self.small, self.side), self.small, palette.FAINT)
            line += self.step
        if cell.answer or cell.good is not None:
            write_answer(draw, (x, line), cell.answer, cell.good, self.em, self.side)
        return left
