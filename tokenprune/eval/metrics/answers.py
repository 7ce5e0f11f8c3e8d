"""Short answers that are right or wrong as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .registry import metric
from .text import bare, one_line, plain

TOLERANCE = 0.05


@metric("exact")
def exact(output: str, answers: Sequence[str]) -> float:
    """1 if the output equals an answer but for case, spacing and the punctuation around it."""
    return float(plain(output) in map(plain, answers))


@metric("gqa")
def gqa(output: str, answers: Sequence[str]) -> float:
    """1 if the output equals an answer but for case and punctuation, as lmms-eval scores GQA: "t-shirt" is "tshirt"."""
    return float(bare(output) in map(bare, answers))


@metric("contains")
def contains(output: str, answers: Sequence[str]) -> float:
    """1 if an answer occurs in the output, case and spacing forgiven; inside a word too: 12 is in 2012.

    An answer without a visible character occurs in nothing.
    """
    folded = one_line(output.casefold())
    found = (one_line(answer.casefold()) for answer in answers)
    return float(any(answer in folded for answer in found if answer))


def _number(text: str) -> float | None:
    """The finite number that the whole text is, a trailing % dividing it by 100; None where it is none."""
    try:
        value = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@metric("relaxed")
def relaxed(output: str, answers: Sequence[str]) -> float:
    """ChartQA's relaxed accuracy (Masry et al. 2022): numbers within 5 % of the answer, other texts equal.

    As in lmms-eval a % sign divides by 100, an answer of 0 is compared as text, case alone is forgiven in a text,
    and thousands separators, currency signs and a final period are not understood. Years are numbers too: 2019
    passes for 2020.
    """

    def right(answer: str) -> bool:
        said, target = _number(output), _number(answer)
        if said is None or not target:
            return output.lower() == answer.lower()
        return abs(said - target) / abs(target) <= TOLERANCE

    return float(any(map(right, answers)))
