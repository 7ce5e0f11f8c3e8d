"""GQA (Hudson and Manning 2019, arXiv:1902.09506): short answers about real scenes."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import gqa
from ..metrics.text import bare
from .scoring import Facts

SHORT = "\nAnswer the question using a single word or phrase."


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if equal to the answer but for case and punctuation."""
    return gqa(output, answers)


def strict(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """As `lmms`, but nothing is no answer, not even to a truth of nothing but punctuation."""
    return gqa(output, answers) if bare(output) else 0.0
