"""VQAv2 (Goyal et al. 2017, arXiv:1612.00837): open questions about photographs, ten annotators each."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import vqa_plain, vqav2
from .base import Asked, Benchmark, Part, Place, Row, first_of, votes
from .fields import PICTURE, TEXT, VOTES, WHOLE
from .gqa import SHORT
from .scoring import Facts, Scorer
from .textvqa import as_written


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """VQA accuracy; `answers` are those of the ten annotators, repeated as often as given."""
    return vqav2(output, answers)


def strict(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """As `lmms`, but what normalisation leaves nothing of ("", "a", "?") is compared as it was written."""
    return vqav2(output, answers) if vqa_plain(output, possessive=False) else as_written(output, answers)


def _ask(row: Row, place: Place) -> list[Asked]:
    # a question's id is its picture's and three digits
    image = first_of(row, "image_id") or str(row["question_id"] // 1000)
    return [Asked(str(row["question_id"]), row["question"] + SHORT, votes(row.get("answers")), group=image)]


BENCHMARKS = (
    Benchmark(
        name="vqav2",
        title="VQAv2, validation",
        aliases=("vqav2_val",),
        ids=("lmms-lab-encoder/VQAv2", "lmms-lab/VQAv2"),
        parts=(Part(None, "validation"),),
        fields={"question_id": WHOLE, "question": TEXT, "image": PICTURE, "answers": VOTES.or_nothing()},
        ask=_ask,
        max_new_tokens=16,
        lmms=Scorer(lmms),
        strict=Scorer(strict),
        prompt="{question}" + SHORT,
        rows="214,354",
    ),
)
