"""EgoSchema (Mangalam et al. 2023, arXiv:2308.09126): three minutes from the head of a person called C, 5 options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .base import Asked, Benchmark, Part, Place, Row
from .fields import ID, INDEX, OPTIONS, TEXT
from .letters import ASK, by_letter, choice_score, right_letter, without_letter
from .scoring import Facts, Scorer, drawn

_LONG = 5  # words of an answer from which an option's text is looked for


def lmms_letter(output: str, options: Mapping[str, str]) -> str:
    """The letter that lmms-eval reads: the first that is written (B), or B with a blank or a full stop behind it, and
    so the name of the person too; else the first option whose whole line occurs in a longer answer; else ""."""
    text = output
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    places = [
        (at, one)
        for one in options
        for form in (f"({one})", f"{one} ", f"{one}.")
        if (at := text.find(form)) >= 0
    ]
    if not places and len(text.split()) > _LONG:
        lines = {one: f"{one}. {option}".lower() for one, option in options.items()}
        places = [(at, one) for one, line in lines.items() if (at := text.lower().find(line)) >= 0]
    return min(places)[1] if places else ""


def lmms(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the letter read is right; where none can be read one is drawn, here by the sample's id.

    facts: "options", the letters with their texts, and "id".
    """
    options = facts["options"]
    return float((lmms_letter(output, options) or drawn(list(options), facts)) in answers)


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option beyond doubt; nothing is drawn."""
    return choice_score(output, answers, facts["options"])


def _ask(row: Row, place: Place) -> list[Asked]:
    options = by_letter([without_letter(option) for option in row["option"]])
    lines = "\n".join(row["option"])
    video = str(row["video_idx"])
    answer = right_letter(options, row["answer"])
    return [
        Asked(
            video, f"{row['question']}\n{lines}\n{ASK}", (answer,), None, video, {"options": options}, video
        )
    ]


BENCHMARKS = (
    Benchmark(
        name="egoschema",
        title="EgoSchema, the subset with public answers",
        aliases=("egoschema_subset",),
        ids=("lmms-eval/egoschema", "lmms-lab/egoschema"),
        parts=(Part("Subset", "test", "videos"),),
        fields={"video_idx": ID, "question": TEXT, "option": OPTIONS, "answer": INDEX},
        ask=_ask,
        max_new_tokens=16,
        lmms=Scorer(lmms),
        strict=Scorer(strict),
        prompt="{question}\n{options}\n" + ASK,
        rows="500",
        image=None,
    ),
)
