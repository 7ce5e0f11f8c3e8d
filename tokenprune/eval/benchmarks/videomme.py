"""Video-MME (Fu et al. 2024, arXiv:2405.21075): four options about videos of eleven seconds to an hour."""

from __future__ import annotations

from collections.abc import Sequence

from .letters import choice_score, extract
from .scoring import Facts


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if lmms-eval's extractor reads the right letter; capitals only."""
    return float(extract(output, "ABCD") in answers)


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option; facts: "options", the letters with their texts."""
    return choice_score(output, answers, facts["options"])
