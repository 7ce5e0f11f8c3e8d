"""RefCOCO (Yu et al. 2016, arXiv:1608.00272): the box of what a sentence describes, right from an IoU of 0.5 on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from ...errors import InputError
from .base import Asked, Benchmark, Part, Place, Row, first_of
from .fields import BOX, ID, PICTURE, TEXTS
from .scoring import Facts, OfRows, Scorer, mean_of

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
    width, height = {"unit": (1, 1), "thousand": (1000, 1000)}.get(facts.get("boxes", "unit")) or facts[
        "size"
    ]
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


PROMPT = (
    "Bounding box coordinates are specified in the format (top-left x, top-left y, bottom-right x, bottom-right y). "
    "All values are floating point numbers bounded between 0 and 1. Please provide the bounding box coordinate of the "
    "region this sentence describes: "
)
UNITS = ("unit", "thousand", "pixels")


def _ask(row: Row, place: Place) -> list[Asked]:
    boxes = place.options["boxes"]
    if boxes not in UNITS:
        raise InputError(f"option boxes={boxes!r}: one of {', '.join(UNITS)}")
    wide, high = size = place.size()
    left, top, width, height = row["bbox"]
    shares = (left / wide, top / high, (left + width) / wide, (top + height) / high)
    answer = f"[{', '.join(f'{share:.6f}' for share in shares)}]"
    facts = {"size": list(size), "boxes": boxes}
    group = first_of(row, "file_name")
    return [
        Asked(f"{row['question_id']}-{n}", PROMPT + sentence, (answer,), group=group, facts=facts)
        for n, sentence in enumerate(row["answer"])
    ]


def _of(name: str, dataset: str, title: str, rows: str) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        aliases=(f"{dataset.lower().replace('plus', '+')}_bbox_rec_val",),
        ids=(f"lmms-lab-encoder/{dataset}", f"lmms-lab/{dataset}"),
        parts=(Part(None, "val"),),
        fields={"question_id": ID, "answer": TEXTS, "bbox": BOX, "image": PICTURE},
        ask=_ask,
        max_new_tokens=64,
        lmms=Scorer(lmms, lmms_totals),
        strict=Scorer(strict, strict_totals),
        prompt=PROMPT + "{sentence}",
        rows=rows,
        options={"boxes": "unit"},
    )


BENCHMARKS = (
    _of("refcoco", "RefCOCO", "RefCOCO, comprehension, val", "8,811, one a sentence"),
    _of("refcoco+", "RefCOCOplus", "RefCOCO+, comprehension, val", "one a sentence"),
    _of("refcocog", "RefCOCOg", "RefCOCOg, comprehension, val", "one a sentence"),
)
