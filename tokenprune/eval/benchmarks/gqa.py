"""GQA (Hudson and Manning 2019, arXiv:1902.09506): short answers about real scenes."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import gqa
from ..metrics.text import bare
from .base import Asked, Benchmark, Part, Pictures, Place, Row
from .fields import ID, PICTURE, TEXT
from .scoring import Facts, Scorer

SHORT = "\nAnswer the question using a single word or phrase."


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if equal to the answer but for case and punctuation."""
    return gqa(output, answers)


def strict(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """As `lmms`, but nothing is no answer, not even to a truth of nothing but punctuation."""
    return gqa(output, answers) if bare(output) else 0.0


def _ask(row: Row, place: Place) -> list[Asked]:
    return [Asked(str(row["id"]), row["question"] + SHORT, (row["answer"],), group=str(row["imageId"]))]


BENCHMARKS = (
    Benchmark(
        name="gqa",
        title="GQA, balanced test-dev",
        ids=("lmms-lab-encoder/GQA", "lmms-lab/GQA"),
        parts=(Part("testdev_balanced_instructions", "testdev"),),
        fields={"id": ID, "imageId": ID, "question": TEXT, "answer": TEXT},
        ask=_ask,
        max_new_tokens=16,
        lmms=Scorer(lmms),
        strict=Scorer(strict),
        prompt="{question}" + SHORT,
        rows="12,578",
        pictures=Pictures("testdev_balanced_images", "imageId", "id", {"id": ID, "image": PICTURE}),
    ),
)
