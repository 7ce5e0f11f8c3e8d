"""Seeded document pages: lines of words, columns, simple tables and receipts on a grid of cells.

A page is a small frozen description; `typesetting` turns it into pixels, `documents` asks about it. Every character
stands near the middle of a cell of 16 x 16 pixels, which is one visual token of `tiny-qwen`; margins are cropped.
As with scenes, the description alone decides everything, so its hash (`Page.key`) splits training from test.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from .layout import Box
from .splits import check_split, digest
from .vocabulary import HELD_OUT_WORDS, LETTERS, TRAIN_WORDS

CELL = 16  # pixels
CHARACTERS = LETTERS + "0123456789.:-/$%"
TOKENS = (100, 300)  # cells of a page of the suites
LENGTH = (20, 80)  # characters of its transcription, spaces and line ends included
MOST_ROWS, MOST_COLUMNS = 16, 22

FACES = ("sans", "sans bold", "mono", "mono bold", "serif", "serif bold", "pillow")
KINDS = ("lines", "columns", "table", "receipt")


@dataclass(frozen=True)
class Piece:
    """A run of characters, one every `pitch` cells from cell (`row`, `column`), spaces included.

    `size` is the height of the letters' em in pixels; `dx`, `dy` shift the run off the middle of its cells.
    """

    text: str
    row: int
    column: int
    face: str
    size: int
    dx: int = 0
    dy: int = 0
    pitch: int = 1

    @property
    def end(self) -> int:
        """The first column after it."""
        return self.column + self.pitch * (len(self.text) - 1) + 1

    @property
    def box(self) -> Box:
        """(left, top, right, bottom) in pixels, whole cells."""
        return (self.column * CELL, self.row * CELL, self.end * CELL, (self.row + 1) * CELL)


@dataclass(frozen=True)
class Page:
    """`lines`: pieces in reading order, line by line; `rules`: (row, from column, to column) of ruled lines, drawn on
    the lower edge of the row. `fields`: (key, line) pairs that can be asked for. `paint` seeds what carries no
    meaning: paper, ink and grain."""

    kind: str
    rows: int
    columns: int
    lines: tuple[tuple[Piece, ...], ...]
    rules: tuple[tuple[int, int, int], ...] = ()
    fields: tuple[tuple[str, int], ...] = ()
    paint: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """What each line says; columns are set apart by one space."""
        return tuple(" ".join(piece.text for piece in line) for line in self.lines)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    @property
    def tokens(self) -> int:
        return self.rows * self.columns

    def key(self) -> str:
        """Sixteen hex digits of what the page says and where, blind to typefaces and paint."""
        content = [(p.text, p.row, p.column) for line in self.lines for p in line]
        return digest(repr((self.rows, self.columns, content)))


def draw_word(rng: random.Random, split: str, most: int = 5) -> str:
    """A word of at most `most` letters. Training mixes in random letters: reading must not become recalling."""
    if split == "held_out" and most >= 5:
        return rng.choice(HELD_OUT_WORDS)
    if split != "train" or rng.random() < 0.5:
        while True:
            word = rng.choice(HELD_OUT_WORDS if split == "held_out" else TRAIN_WORDS)
            if len(word) <= most:
                return word
    while True:
        word = "".join(rng.choices(LETTERS, k=rng.randint(2 if most < 4 else 3, most)))
        if word not in HELD_OUT_WORDS:
            return word


def _digits(rng: random.Random, low: int, high: int) -> str:
    return "".join(rng.choices("0123456789", k=rng.randint(low, high)))


def draw_price(rng: random.Random) -> str:
    return f"{rng.choice(('', '', '$'))}{rng.randint(0, 99)}.{rng.randint(0, 99):02d}"


def draw_number(rng: random.Random) -> str:
    """A price, an amount, a share, a date, a time or a code."""
    return rng.choice(
        (
            draw_price,
            lambda r: _digits(r, 1, 4),
            lambda r: f"{r.randint(1, 99)}%",
            lambda r: f"{r.randint(1, 31)}/{r.randint(1, 12):02d}",
            lambda r: f"{r.randint(0, 23)}:{r.randint(0, 59):02d}",
            lambda r: f"{r.choice(LETTERS)}{_digits(r, 1, 2)}-{_digits(r, 1, 2)}",
        )
    )(rng)


class _Sheet:
    """A page being set: rows from the top down, one typeface and one shift a line."""

    def __init__(self, rng: random.Random, rows: int, columns: int, split: str, most: int) -> None:
        self.rng, self.rows, self.columns, self.split, self.most = rng, rows, columns, split, most
        self.face = rng.choice(FACES)
        self.leading = 2 if rows >= 9 or (rows >= 4 and rng.random() < 0.3) else 1
        self.row = rng.choice((0, 0, 1)) if rows > 5 else 0
        self.lines: list[tuple[Piece, ...]] = []
        self.rules: list[tuple[int, int, int]] = []
        self.fields: list[tuple[str, int]] = []
        self.length = 0
        self.words = {"TOTAL", "DATE"}
        self.size = rng.randint(13, 15) if self.leading == 1 else rng.randint(14, 20)
        self.lift = rng.randint(-2, 2)

    def open(self) -> bool:
        return self.row < self.rows

    def put(self, *parts: tuple[int, str], key: str | None = None, pitch: int = 1, face: str = "") -> bool:
        """Set a line of (column, text) parts; False, and the page is full, where it does not fit."""
        text = " ".join(part for _, part in parts)
        ends = [column + pitch * (len(part) - 1) + 1 for column, part in parts]
        fits = all(
            end < column for end, (column, _) in zip(ends, parts[1:])
        )  # at least one empty cell between
        if not self.open() or not fits or ends[-1] > self.columns or self.length + len(text) > self.most:
            return False
        size = self.size if pitch == 1 else self.rng.randint(24, 32)
        dx, dy = self._shift(parts[0][0], ends[-1])
        face = face or (self.rng.choice(FACES) if self.rng.random() < 0.2 else self.face)
        row = self.row
        self.lines.append(tuple(Piece(part, row, c, face, size, dx, dy, pitch) for c, part in parts))
        if key:
            self.fields.append((key, len(self.lines) - 1))
        self.length += len(text) + 1
        self.row += self.leading if self.leading == 2 or self.rows < 6 or self.rng.random() < 0.8 else 2
        return True

    def _shift(self, left: int, right: int) -> tuple[int, int]:
        """How far a line stands off the middle of its cells; crowded lines stay level, none leaves the page."""
        low = (
            self.rng.randint(-3, 3)
            if self.leading == 2
            else max(-3, min(3, self.lift + self.rng.randint(-1, 1)))
        )
        low = max(0, low) if self.row == 0 else min(0, low) if self.row == self.rows - 1 else low
        first, last = (1 if left == 0 else -4), (-1 if right == self.columns else 4)
        return (self.rng.randint(first, last) if first <= last else 0), low

    def rule(self, left: int, right: int) -> None:
        """A ruled line below the line that stands last; the text keeps clear of it."""
        if self.lines and self.open():
            row = self.lines[-1][0].row
            self.rules.append((row, left, right))
            self.row = max(self.row, row + 2)

    def word(self, most: int = 5) -> str:
        """A word that does not stand on the page yet, so that a key names one line."""
        while (word := draw_word(self.rng, self.split, most)) in self.words:
            pass
        self.words.add(word)
        return word


def _lines(sheet: _Sheet) -> None:
    rng, full = sheet.rng, False
    while sheet.open() and not full:
        column = rng.choice((0, 0, 0, 1, 2))
        target = rng.randint(max(3, sheet.columns // 2), sheet.columns) - column
        words: list[str] = []
        for _ in range(8):
            word = draw_number(rng) if rng.random() < 0.3 else draw_word(rng, sheet.split)
            if len(" ".join([*words, word])) <= target:
                words.append(word)
        if words:
            full = not sheet.put((column, " ".join(words)))


def _columns(sheet: _Sheet) -> None:
    """Words and numbers in two or three columns, read row by row; the first column is the key."""
    rng = sheet.rng
    first = rng.randint(6, 7)
    starts = [0, first]
    if sheet.columns >= first + 14 and rng.random() < 0.6:
        starts.append(first + 8)
    wordy = [True, *(rng.random() < 0.3 for _ in starts[1:])]
    while sheet.open():
        key = sheet.word()
        cells = [key, *(sheet.word() if w else draw_number(rng)[:7] for w in wordy[1:])]
        if not sheet.put(*zip(starts, cells), key=key):
            return


def _table(sheet: _Sheet) -> None:
    """A header between rules, then rows of a name and numbers set flush right."""
    rng = sheet.rng
    width = min(sheet.columns, rng.randint(12, 16))
    middle = sheet.columns >= 15 and rng.random() < 0.6
    ends = [width - 6, width] if middle else [width]

    def row(name: str, values: list[str]) -> list[tuple[int, str]]:
        return [(0, name), *((end - len(value), value) for end, value in zip(ends, values))]

    bold = f"{sheet.face} bold" if f"{sheet.face} bold" in FACES else sheet.face
    if sheet.put(*row(sheet.word(4), [sheet.word(4) for _ in ends]), face=bold):
        sheet.rule(0, width)
    while sheet.open():
        key = sheet.word(4 if middle else 5)
        values = [str(rng.randint(1, 999)), draw_price(rng)] if middle else [draw_number(rng)]
        if not sheet.put(*row(key, values), key=key):
            return
        if rng.random() < 0.15:
            sheet.rule(0, width)


def _receipt(sheet: _Sheet) -> None:
    """A title, a date, things and their prices flush right, a rule, the total."""
    rng = sheet.rng
    width = min(sheet.columns, rng.randint(12, 18))
    title = sheet.word()
    if sheet.leading == 2 and 2 * len(title) <= width and rng.random() < 0.7:
        sheet.row = 1
        sheet.put(((width - 2 * len(title)) // 2, title), pitch=2)
    elif sheet.rows >= 4:
        sheet.put(((width - len(title)) // 2, title))
    if sheet.rows >= 6 and rng.random() < 0.4:
        date = f"{rng.randint(1, 31)}/{rng.randint(1, 12):02d}"
        sheet.put((0, "DATE"), (width - len(date), date), key="DATE")
    total = draw_price(rng)
    need = len(total) + 7
    most, sheet.most = sheet.most, sheet.most - need
    rows, sheet.rows = sheet.rows, sheet.rows - sheet.leading - 1
    while sheet.open():
        key, price = sheet.word(), draw_price(rng)
        if rng.random() < 0.25:
            key_line = f"{rng.randint(2, 9)} {key}"
            done = sheet.put((0, key_line), (width - len(price), price), key=key)
        else:
            done = sheet.put((0, key), (width - len(price), price), key=key)
        if not done:
            break
    sheet.most, sheet.rows = most, rows
    if rng.random() < 0.6:
        sheet.rule(0, width)
    sheet.put((0, "TOTAL"), (width - len(total), total), key="TOTAL")


_SETTERS: dict[str, Callable[[_Sheet], None]] = {
    "lines": _lines,
    "columns": _columns,
    "table": _table,
    "receipt": _receipt,
}


def draw_page(
    rng: random.Random,
    split: str = "train",
    rows: int | None = None,
    columns: int | None = None,
    kind: str | None = None,
    most: int = LENGTH[1],
) -> Page:
    """One random page of `split` with at most `most` characters, on a given grid or one it chooses itself.

    A page that chooses its grid is one of the suites: 100 to 300 cells, 20 to 80 characters.
    """
    check_split(split)
    while True:
        if rows is not None and columns is not None:
            free, height, width = False, rows, columns
        else:
            free, height, width = True, rng.randint(6, MOST_ROWS), rng.randint(10, MOST_COLUMNS)
            if not TOKENS[0] <= height * width <= TOKENS[1]:
                continue
        chosen = kind or ("lines" if width < 12 else rng.choice(KINDS))
        sheet = _Sheet(rng, height, width, split, most)
        _SETTERS[chosen](sheet)
        if not sheet.lines:
            continue
        lines, rules, fields = tuple(sheet.lines), tuple(sheet.rules), tuple(sheet.fields)
        page = Page(chosen, height, width, lines, rules, fields, rng.randrange(2**31))
        if not free:
            return page
        # The margin below and to the right is cropped to one cell at most.
        low = max(line[0].row + (line[0].dy > 1) for line in lines) + 1 + (rng.random() < 0.2)
        wide = max(p.end + (p.dx > 1) for line in lines for p in line) + (rng.random() < 0.2)
        page = Page(chosen, min(low, height), min(wide, width), lines, rules, fields, page.paint)
        if TOKENS[0] <= page.tokens <= TOKENS[1] and LENGTH[0] <= len(page.text) <= LENGTH[1]:
            return page
