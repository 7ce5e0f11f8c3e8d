"""ScienceQA (Lu et al. 2022, arXiv:2209.09513), the questions that have a picture: school science, 2 to 5 options."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import letter
from .letters import by_letter, choice_score
from .scoring import Facts


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if the output is the letter, in either case, or starts with it as "B.", in upper case."""
    return letter(output, answers)


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option; facts: "options" in order."""
    return choice_score(output, answers, by_letter(facts["options"]))
