"""Suites of questions about drawn document pages: seeded, the same on every machine.

    from tokenprune.zoo import documents
    for sample in documents.suite("test", n=300, seed=0):
        sample.image, sample.question, sample.answer, sample.boxes

Three kinds: `page` (transcribe all of it, lines end in a line feed, columns are set apart by one space), `line` (one
line, by number) and `value` (what stands beside a key). `test` holds pages that training can never have drawn,
`held_out` pages whose words training never showed, `train` what training saw.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from . import suites
from .pages import KINDS as PAGE_KINDS
from .pages import Page, draw_page
from .questions import Question
from .splits import belongs
from .typesetting import render

KINDS = ("page", "line", "value")
SHARES = {"page": 0.4, "line": 0.3, "value": 0.3}


@functools.lru_cache(maxsize=64)
def _render(page: Page) -> Image.Image:
    return render(page)


@dataclass(frozen=True)
class Sample(suites.Sample):
    """One question about one page.

    `boxes`: what has to be read to answer, (left, top, right, bottom) in pixels of the picture. Samples of one page
    share the part of `id` before the dash.
    """

    page: Page

    @property
    def image(self) -> Image.Image:
        """The picture, RGB, 16 x 16 pixels a visual token; drawn when asked for."""
        return _render(self.page).copy()


def ask(page: Page, kind: str) -> list[Question]:
    """Every question of `kind` that the page answers."""
    if kind == "page":
        boxes = tuple(piece.box for line in page.lines for piece in line)
        return [Question(kind, "read the page.", page.text, boxes, ())]
    if kind == "line":
        return [
            Question(kind, f"read line {n}.", text, tuple(piece.box for piece in line), ())
            for n, (line, text) in enumerate(zip(page.lines, page.texts), 1)
        ]
    if kind == "value":
        found = []
        for key, number in page.fields:
            line = page.lines[number]
            boxes = (line[0].box, line[-1].box)
            found.append(Question(kind, f"what is the {key}?", line[-1].text, boxes, (key,)))
        return found
    raise KeyError(kind)


def suite(split: str = "test", n: int = 300, seed: int = 0) -> list[Sample]:
    """`n` questions of `split`: 40 % whole pages, 30 % lines, 30 % values, no two about the same page.

    The same (split, n, seed) gives the same suite everywhere.
    """
    rng = suites.generator(split, n, seed, "documents/")
    wanted: list[str] = []
    for kind, share in SHARES.items():
        wanted += [kind] * round(share * n)
    wanted = (wanted + ["page"] * n)[:n]
    rng.shuffle(wanted)
    samples, seen = [], set()
    for number, kind in enumerate(wanted):
        while True:
            page = draw_page(rng, split, kind=PAGE_KINDS[number % 4] if kind != "value" else None)
            questions = ask(page, kind)
            if questions and belongs(page, split) and page.key() not in seen:
                break
        seen.add(page.key())
        question = rng.choice(questions)
        name = f"{page.key()}-{kind}"
        samples.append(Sample(name, question.text, question.answer, kind, question.boxes, split, page))
    return samples


suite_hash = suites.suite_hash


def majority(samples: Sequence[Sample]) -> dict[str, float]:
    """Kind -> share of its most frequent answer: what answering without looking can reach."""
    return suites.majority(samples, KINDS)


def edit_distance(a: str, b: str) -> int:
    """Fewest insertions, deletions and replacements of characters that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def character_error_rate(samples: Sequence[Sample], found: Sequence[str]) -> float:
    """Edit distance to the answers over their length, all samples together."""
    wrong = sum(edit_distance(answer, sample.answer) for sample, answer in zip(samples, found, strict=True))
    return wrong / max(1, sum(len(sample.answer) for sample in samples))
