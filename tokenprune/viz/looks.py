"""From a `FixationReport` to decode steps: what was looked at, of which image, and what was written meanwhile.

The first token of an answer comes out of the prefill. Decode step s (from 0) reads token s and writes token s + 1, so
an answer of n tokens takes n - 1 steps, and one more when it ends by an end token instead of by a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from typing import TypeVar

import numpy as np

from ..errors import InputError
from ..tokens import ImageReport, PruneReport
from .cells import cells_of

T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """One decode step."""

    step: int  # as the report counts them, from 0
    chosen: dict[
        int, list[list[int]]
    ]  # focal layer -> per image of the row, ascending indices of its own tokens
    before: str = ""  # the answer so far
    after: str = ""  # with what this step wrote
    ends: bool = False  # it wrote the end token

    @property
    def piece(self) -> str:
        """What this step wrote, as far as it shows."""
        same = takewhile(lambda pair: pair[0] == pair[1], zip(self.before, self.after, strict=False))
        return self.after[sum(1 for _ in same) :]


def looks_of(report: PruneReport, written: Sequence[str] = (), row: int = 0) -> list[Look]:
    """The decode steps of one batch row, in order; [] where no decode-stage method looked.

    written: the row's answer after 1, 2, ... of its tokens, without an end token. Images are those of the last
    prefill; choices among images of earlier turns are left out. Raises `InputError` when the report counts fewer
    visual tokens than its images have.
    """
    fixation = report.fixation
    if fixation is None:
        return []
    sizes = [image.before for image in report.images if image.row == row]
    start = fixation.visual[row] - sum(sizes)  # those before belong to earlier turns
    if start < 0:
        raise InputError(
            f"row {row}: {sum(sizes)} visual tokens in its images, {fixation.visual[row]} in its steps"
        )
    bounds = start + np.cumsum([0, *sizes])
    steps: dict[int, dict[int, list[list[int]]]] = {}
    for step, layer, rows in fixation.choices:
        indices = np.asarray(rows[row], dtype=np.int64)
        own = [indices[(indices >= a) & (indices < b)] - a for a, b in pairwise(bounds)]
        steps.setdefault(step, {})[layer] = [part.tolist() for part in own]
    texts = ["", *written]
    return [
        Look(
            step,
            steps[step],
            texts[min(step + 1, len(written))],
            texts[min(step + 2, len(written))],
            ends=bool(written) and step + 2 > len(written),
        )
        for step in sorted(steps)
    ]


def focus(report: ImageReport, chosen: Sequence[int]) -> ImageReport:
    """The report as if exactly these tokens had been kept: what an overlay lights up."""
    return replace(report, kept=list(chosen), after=len(chosen), owner=None, scores=None)


def lit(report: ImageReport, chosen: Sequence[int], *, part: int | None = None, frame: int = 0) -> np.ndarray:
    """(rows, cols) bool: the cells of the picture that `chosen` tokens stand for. part, frame: see `cells_of`."""
    return cells_of(focus(report, chosen), part=part, frame=frame).centre


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of them, the first and the last always, the others evenly between. most=1: the last."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
