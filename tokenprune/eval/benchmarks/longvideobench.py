"""LongVideoBench (Wu et al. 2024, arXiv:2407.15754): questions about moments of videos of up to an hour."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .base import Asked, Benchmark, Part, Place, Row, first_of
from .fields import ID, INDEX, TEXT, Field
from .letters import ASK, by_letter, choice_score, listed, right_letter
from .scoring import Facts, Scorer, drawn

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


def _ask(row: Row, place: Place) -> list[Asked]:
    texts = [row.get(f"option{n}") for n in range(5)]
    options = by_letter([text for text in texts if isinstance(text, str) and text != "N/A"])
    question = f"{row['question']}\n{listed(options)}\n\n{ASK}\n"
    answer = right_letter(options, row["correct_choice"])
    video, facts = row["video_path"], {"options": list(options.values())}
    return [Asked(str(row["id"]), question, (answer,), first_of(row, "duration_group"), video, facts, video)]


_OPTION = Field('a text, "N/A" where there is none', lambda v: isinstance(v, str))
BENCHMARKS = (
    Benchmark(
        name="longvideobench",
        title="LongVideoBench, validation, without subtitles",
        aliases=("longvideobench_val_v",),
        ids=("longvideobench/LongVideoBench",),
        parts=(Part(None, "validation", "videos"),),
        fields={
            "id": ID, "video_path": TEXT, "question": TEXT, "option0": _OPTION, "option1": _OPTION,
            "option2": _OPTION.or_nothing(), "option3": _OPTION.or_nothing(), "option4": _OPTION.or_nothing(),
            "correct_choice": INDEX,
        },
        ask=_ask,
        max_new_tokens=32,
        lmms=Scorer(lmms),
        strict=Scorer(strict),
        prompt="{question}\nA. ...\nB. ...\n\n" + ASK + "\n",
        rows="1,337",
        image=None,
    ),
)  # fmt: skip
