"""TextVQA (Singh et al. 2019, arXiv:1904.08920): questions about text in photographs, ten annotators each."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import plain, vqa, vqa_plain
from .base import Asked, Benchmark, Part, Place, Row, first_of, votes
from .fields import ID, PICTURE, TEXT, VOTES, Field
from .gqa import SHORT
from .scoring import Facts, Scorer


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """VQA accuracy; `answers` are those of the ten annotators, repeated as often as given."""
    return vqa(output, answers)


def strict(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """As `lmms`, but what normalisation leaves nothing of ("", "a", "?") is compared as it was written."""
    return vqa(output, answers) if vqa_plain(output) else as_written(output, answers)


def as_written(output: str, answers: Sequence[str]) -> float:
    """VQA accuracy among ten annotators without normalisation: an output of no visible character is wrong."""
    said = plain(output)
    agree = sum(plain(answer) == said for answer in answers) if said else 0
    return min(1.0, 0.3 * agree)


def _ask(row: Row, place: Place) -> list[Asked]:
    question = row["question"].capitalize()  # acronyms are lost, as in lmms-eval
    if place.options["ocr"]:
        question += f"\nReference OCR token: {', '.join(row.get('ocr_tokens') or ())}"
    group = first_of(row, "image_id")
    return [Asked(str(row["question_id"]), question + SHORT, votes(row.get("answers")), group=group)]


BENCHMARKS = (
    Benchmark(
        name="textvqa",
        title="TextVQA, validation",
        aliases=("textvqa_val",),
        ids=("lmms-lab-encoder/textvqa", "lmms-lab/textvqa"),
        parts=(Part(None, "validation"),),
        fields={
            "question_id": ID, "question": TEXT, "image": PICTURE, "answers": VOTES.or_nothing(),
            "ocr_tokens": Field("a list of texts", lambda v: isinstance(v, list)).or_nothing(),
        },
        ask=_ask,
        max_new_tokens=32,
        lmms=Scorer(lmms),
        strict=Scorer(strict),
        prompt="{question, first letter alone a capital}[\nReference OCR token: ...]" + SHORT,
        rows="5,000",
        options={"ocr": False},
    ),
)  # fmt: skip
