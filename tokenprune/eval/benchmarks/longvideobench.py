"""LongVideoBench (Wu et al. 2024, arXiv:2407.15754): referring questions about videos of up to an hour, 2 to 5 options."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .letters import by_letter, choice_score
from .scoring import Facts, drawn

_PREFIXES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer", "The best option is",
    "The correct option is", "Best answer:", "Best option:",
)  # fmt: skip


def lmms_letter(output: str) -> str:
    """The first A to E anywhere, inside a word too, once a few ways of beginning are taken out; "" without one."""
    text = output.strip()
    for prefix in _PREFIXES:
        text = text.replace(prefix, "")
    found = re.search("[A-E]", text)
    return found.group() if found else ""


def lmms(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the letter read is right; where there is none one is drawn, here by the sample's id.

    facts: "options" in order, and "id".
    """
    letters = list(by_letter(facts["options"]))
    return float((lmms_letter(output) or drawn(letters, facts)) in answers)


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option; nothing is drawn."""
    return choice_score(output, answers, by_letter(facts["options"]))
