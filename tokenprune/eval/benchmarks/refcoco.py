"""RefCOCO (Yu et al. 2016, arXiv:1608.00272): the box of what a sentence describes, right from an IoU of 0.5 on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from .scoring import Facts, OfRows, mean_of

Box = tuple[float, float, float, float]
HIT = 0.5
NOWHERE: Box = (0.0, 0.0, 0.0, 0.0)
_LISTED = re.compile(r"\[" + r",\s*".join([r"(-?\d+(?:\.\d+)?)"] * 4) + r"\]")
_NUMBER = r"(-?(?:\d+\.?\d*|\.\d+))"
_WRITTEN = re.compile(r"[\[(<{]\s*" + r"[\s,;]+".join([_NUMBER] * 4) + r"\s*[\])>}]")


def box(text: str) -> Box:
    """lmms-eval's reading: the first four numbers in square brackets without inner blanks; else all zeros."""
    found = _LISTED.search(text)
    return _floats(found) if found else NOWHERE


def written_box(text: str, facts: Facts) -> Box:
    """The last four numbers in brackets of any kind, as shares of the picture.

    facts: "boxes" says what the model writes, "unit" shares, "thousand" thousandths, or "pixels" of a picture of
    "size" (width, height).
    """
    found = list(_WRITTEN.finditer(text))
    if not found:
        return NOWHERE
    left, top, right, bottom = _floats(found[-1])
    width, height = {"unit": (1, 1), "thousand": (1000, 1000)}.get(facts.get("boxes", "unit")) or facts["size"]
    return left / width, top / height, right / width, bottom / height


def _floats(found: re.Match[str]) -> Box:
    left, top, right, bottom = map(float, found.groups())
    return left, top, right, bottom


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (left, top, right, bottom); 0 where neither has an area."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, wide) * max(0.0, high)
    either = sum((one[2] - one[0]) * (one[3] - one[1]) for one in (a, b)) - both
    return both / either if either else 0.0


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if the box read overlaps the right one by at least a half; `answers` is that box as `[0.1, 0.2, 0.3, 0.4]`."""
    return float(_lmms_iou(output, answers) >= HIT)


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """The same of a box in any brackets and in the unit that "boxes" of the facts names."""
    return float(_strict_iou(output, answers, facts) >= HIT)


def lmms_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """`iou`, the mean overlap; `unparsed`, the share of outputs without a box."""
    return _totals(lambda text, fact: box(text), outputs, answers, facts)


def strict_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """The same of the strict reading."""
    return _totals(written_box, outputs, answers, facts)


def _lmms_iou(output: str, answers: Sequence[str]) -> float:
    return iou(box(output), box(answers[0]))


def _strict_iou(output: str, answers: Sequence[str], facts: Facts) -> float:
    return iou(written_box(output, facts), box(answers[0]))


def _totals(
    read: Callable[[str, Facts], Box],
    outputs: Sequence[str],
    answers: Sequence[Sequence[str]],
    facts: Sequence[Facts],
) -> OfRows:
    boxes = [read(text, fact) for text, fact in zip(outputs, facts)]
    overlap = np.array([iou(found, box(answer[0])) for found, answer in zip(boxes, answers)])
    lost = np.array([found == NOWHERE for found in boxes], dtype=float)
    return lambda rows: {"iou": mean_of(overlap, rows), "unparsed": mean_of(lost, rows)}
