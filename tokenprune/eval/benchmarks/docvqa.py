"""DocVQA (Mathew et al. 2021, arXiv:2007.00398): questions about scanned documents, by ANLS."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import anls
from ..metrics.text import one_line
from .base import Asked, Benchmark, Part, Place, Row, first_of
from .fields import ID, PICTURE, TEXT, TEXTS
from .gqa import SHORT
from .scoring import Facts, Scorer


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """ANLS with the lengths of the texts as given, blanks and all."""
    return anls(output, answers)


def strict(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """ANLS with the lengths of what is compared; an output of no visible character is wrong."""
    said = one_line(output)
    return anls(said, [one_line(answer) for answer in answers]) if said else 0.0


def _ask(row: Row, place: Place) -> list[Asked]:
    document, page = first_of(row, "ucsf_document_id"), first_of(row, "ucsf_document_page_no")
    group = f"{document}/{page}" if document and page else None
    return [
        Asked(str(row["questionId"]), row["question"] + SHORT, tuple(row.get("answers") or ()), group=group)
    ]


BENCHMARKS = (
    Benchmark(
        name="docvqa",
        title="DocVQA, validation",
        aliases=("docvqa_val",),
        ids=("lmms-lab-encoder/DocVQA", "lmms-lab/DocVQA"),
        parts=(Part("DocVQA", "validation"),),
        fields={"questionId": ID, "question": TEXT, "answers": TEXTS.or_nothing(), "image": PICTURE},
        ask=_ask,
        max_new_tokens=32,
        lmms=Scorer(lmms),
        strict=Scorer(strict),
        prompt="{question}" + SHORT,
        rows="5,349",
    ),
)
