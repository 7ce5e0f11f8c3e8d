"""TextVQA (Singh et al. 2019, arXiv:1904.08920): questions about text in photographs, ten annotators each."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import plain, vqa, vqa_plain
from .scoring import Facts


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
