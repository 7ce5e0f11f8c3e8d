"""VQAv2 (Goyal et al. 2017, arXiv:1612.00837): open questions about photographs, ten annotators each."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import vqa_plain, vqav2
from .scoring import Facts
from .textvqa import as_written


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """VQA accuracy; `answers` are those of the ten annotators, repeated as often as given."""
    return vqav2(output, answers)


def strict(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """As `lmms`, but what normalisation leaves nothing of ("", "a", "?") is compared as it was written."""
    return vqav2(output, answers) if vqa_plain(output, possessive=False) else as_written(output, answers)
