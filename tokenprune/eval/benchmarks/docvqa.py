"""DocVQA (Mathew et al. 2021, arXiv:2007.00398): questions about scanned documents, by ANLS."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import anls
from ..metrics.text import one_line
from .scoring import Facts


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """ANLS with the lengths of the texts as given, blanks and all."""
    return anls(output, answers)


def strict(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """ANLS with the lengths of what is compared; an output of no visible character is wrong."""
    said = one_line(output)
    return anls(said, [one_line(answer) for answer in answers]) if said else 0.0
