"""AI2D (Kembhavi et al. 2016, arXiv:1603.07396): questions about diagrams of school books, four options."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..metrics.text import bare
from .letters import by_letter, choice_score
from .scoring import Facts

_LETTERED = re.compile(r"\s*([A-Z])\.")


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if the output, or the letter it starts with as "B.", is the answer but for case and punctuation."""
    found = _LETTERED.match(output)
    said = bare(found.group(1) if found else output)
    return float(said in map(bare, answers))


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option; facts: "options" in order."""
    return choice_score(output, answers, by_letter(facts["options"]))
