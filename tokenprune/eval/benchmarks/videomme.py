"""Video-MME (Fu et al. 2024, arXiv:2405.21075): four options about videos of eleven seconds to an hour."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Asked, Benchmark, Part, Place, Row
from .fields import ID, LETTER, OPTIONS, TEXT
from .letters import ASK, by_letter, choice_score, extract, without_letter
from .scoring import Facts, Scorer


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if lmms-eval's extractor reads the right letter; capitals only."""
    return float(extract(output, "ABCD") in answers)


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option; facts: "options", the letters with their texts."""
    return choice_score(output, answers, facts["options"])


PROMPT = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. Respond "
    "with only the letter (A, B, C, or D) of the correct option.\n"
)


def _ask(row: Row, place: Place) -> list[Asked]:
    lines = "\n".join(row["options"])
    facts = {"options": by_letter([without_letter(option) for option in row["options"]])}
    question = f"{PROMPT}{row['question']}\n{lines}\n\n{ASK}"
    video = str(row["videoID"])
    return [Asked(str(row["question_id"]), question, (row["answer"],), row["duration"], video, facts, video)]


BENCHMARKS = (
    Benchmark(
        name="videomme",
        title="Video-MME, without subtitles",
        ids=("lmms-eval/Video-MME", "lmms-lab/Video-MME"),
        parts=(Part(None, "test", "data"),),
        fields={
            "videoID": ID, "question_id": ID, "duration": TEXT, "question": TEXT, "options": OPTIONS, "answer": LETTER,
        },
        ask=_ask,
        max_new_tokens=16,
        lmms=Scorer(lmms),
        strict=Scorer(strict),
        prompt=PROMPT + "{question}\n{options}\n\n" + ASK,
        rows="2,700 about 900 videos",
        image=None,
    ),
)  # fmt: skip
