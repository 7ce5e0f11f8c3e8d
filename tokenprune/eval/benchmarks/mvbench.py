"""MVBench (Li et al. 2023, arXiv:2311.17005): twenty tasks of 200 questions about short clips."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError, UnknownNameError, neighbours
from ..metrics.vqa import without_marks
from .base import Asked, Benchmark, Part, Place, Row
from .fields import OPTIONS, TEXT
from .letters import by_letter, choice_score
from .scoring import Facts, OfRows, Scorer, mean_of

_LETTERED = re.compile(r"([A-E])\.")
_ALONE = re.compile(r"\b[a-e]\b")


def lmms_letter(output: str) -> str:
    """ "B." at the beginning, else the first a to e that stands alone once punctuation is gone: an article is an A."""
    if found := _LETTERED.match(output):
        return found.group(1)
    found = _ALONE.search(without_marks(output.strip()).lower())
    return found.group().upper() if found else ""


def lmms(output: str, answers: Sequence[str], facts: Facts | None = None) -> float:
    """1 if the letter read is right."""
    return float(lmms_letter(output) in answers)


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option; facts: "options" in order."""
    return choice_score(output, answers, by_letter(facts["options"]))


def lmms_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """`mean of tasks`, over the answers that are not empty, as lmms-eval counts them; `empty`, the share of the others.

    facts: "kind" is the task. A run that often says nothing looks better so than it is.
    """
    return _totals(lmms, False, outputs, answers, facts)


def strict_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """`mean of tasks` over all answers, and the share that is empty."""
    return _totals(strict, True, outputs, answers, facts)


def _totals(
    each: Callable[[str, Sequence[str], Facts], float],
    with_empty: bool,
    outputs: Sequence[str],
    answers: Sequence[Sequence[str]],
    facts: Sequence[Facts],
) -> OfRows:
    right = np.array([each(*row) for row in zip(outputs, answers, facts)])
    empty = np.array([not output for output in outputs])
    tasks, codes = np.unique([str(fact.get("kind")) for fact in facts], return_inverse=True)

    def of(rows: np.ndarray) -> dict[str, float]:
        counted = rows if with_empty else rows[~empty[rows]]
        means = [
            mean_of(right, part) for t in range(len(tasks)) if (part := counted[codes[counted] == t]).size
        ]
        found = {"empty": mean_of(empty.astype(float), rows)}
        return found | ({"mean of tasks": float(np.mean(means))} if means else {})

    return of


TASKS = {  # and where their clips lie
    "action_antonym": "ssv2_video", "action_count": "perception/videos", "action_localization": "sta/sta_video",
    "action_prediction": "star/Charades_v1_480", "action_sequence": "star/Charades_v1_480",
    "character_order": "perception/videos", "counterfactual_inference": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa", "episodic_reasoning": "tvqa/frames_fps3_hq",
    "fine_grained_action": "Moments_in_Time_Raw/videos", "fine_grained_pose": "nturgbd",
    "moving_attribute": "clevrer/video_validation", "moving_count": "clevrer/video_validation",
    "moving_direction": "clevrer/video_validation", "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480", "object_shuffle": "perception/videos",
    "scene_transition": "scene_qa/video", "state_change": "perception/videos", "unexpected_action": "FunQA_test/test",
}  # fmt: skip


def _chosen(parts: Sequence[Part], options: Mapping[str, Any]) -> list[Part]:
    wanted = options["tasks"] or list(TASKS)
    for task in wanted:
        if task not in TASKS:
            raise UnknownNameError(f"MVBench has no task {task!r}; {neighbours(str(task), TASKS)}")
    return [part for part in parts if part.config in wanted]


def _ask(row: Row, place: Place) -> list[Asked]:
    options = by_letter(row["candidates"])
    right = [letter for letter, option in options.items() if option == row["answer"]]
    if not right:
        raise InputError(f"field 'answer' is {row['answer']!r}, which is none of the candidates")
    lines = "".join(f"({letter}) {option}\n" for letter, option in options.items())
    question = f"Question:{row['question']}\nOption:\n{lines}{BEST}"
    task, facts = place.part.config, {"options": row["candidates"]}
    group = f"{place.part.folder}/{row['video']}"
    return [Asked(f"{task}-{place.number:03d}", question, (right[0],), task, group, facts, row["video"])]


BEST = "Only give the best option.\n"
BENCHMARKS = (
    Benchmark(
        name="mvbench",
        title="MVBench, twenty tasks",
        ids=("OpenGVLab/MVBench",),
        parts=tuple(Part(task, "train", f"video/{folder}") for task, folder in TASKS.items()),
        fields={"video": TEXT, "question": TEXT, "candidates": OPTIONS, "answer": TEXT},
        ask=_ask,
        max_new_tokens=16,
        lmms=Scorer(lmms, lmms_totals, "mean of tasks"),
        strict=Scorer(strict, strict_totals, "mean of tasks"),
        prompt="Question:{question}\nOption:\n(A) ...\n(B) ...\n" + BEST,
        rows="4,000",
        image=None,
        options={"tasks": None},
        choose=_chosen,
    ),
)
