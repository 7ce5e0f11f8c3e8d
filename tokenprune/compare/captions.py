"""What all figures of a comparison say in words."""

from __future__ import annotations

from ..viz.sheet import Fact
from .result import BLIND, NONE, Answer, Comparison


def caption_of(comparison: Comparison, legend: str) -> str:
    """The line at the foot of a page."""
    model = " ".join(filter(None, [comparison.model["name"], comparison.model["version"]]))
    return f"{model}   ·   tokenprune {comparison.versions['tokenprune']}   ·   {legend}"


def good(answer: Answer) -> bool | None:
    """Whether an answer is right or, where that is not known, the unpruned one."""
    return answer.agrees if answer.correct is None else answer.correct


def reads(answer: Answer) -> str:
    """What stands in place of token counts where nothing is dropped: how much a decode step reads; else ""."""
    look = answer.report.fixation if answer.report is not None else None
    return "" if look is None else f"a step reads {look.read_share:.0%}"


def facts(comparison: Comparison, index: int) -> list[Fact]:
    """What an answer is to be compared with."""
    out: list[Fact] = []
    expected = comparison.examples[index].expected
    if expected is not None:
        out.append(("right answer", expected, None))
    for label, method in (("unpruned", NONE), ("blind", BLIND)):
        answer = comparison.answer(index, method)
        if answer is not None and answer.error is None:
            out.append((label, answer.text, answer.correct))
    return out
