"""MMBench (Liu et al. 2023, arXiv:2307.06281): a question counts if it is answered with its options in every order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .base import Asked, Benchmark, Part, Place, Row
from .fields import ANY_TEXT, LETTER, PICTURE, TEXT, WHOLE, Field
from .letters import ASK, choice_score, extract, infer, listed
from .scoring import Facts, OfRows, Scorer, firsts, mean_of

ROTATION = 1_000_000
"""A row's index modulo this is its question; the options of rows from here on are turned."""


def lmms(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the letter read is right: what MMBench reads without a judge, else what lmms-eval's extractor reads.

    facts: "options", the letters with their texts.
    """
    return float((infer(output, facts["options"]) or extract(output)) in answers)


def strict(output: str, answers: Sequence[str], facts: Facts) -> float:
    """1 if the output names the right option beyond doubt."""
    return choice_score(output, answers, facts["options"])


def lmms_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """`circular`: share of questions with every rotation right; `vanilla`: of the rows whose options are not turned.

    facts: "group" is the question, "index" the row's. A question counts by the rotations that are among the rows.
    """
    return _totals(lmms, outputs, answers, facts)


def strict_totals(outputs: Sequence[str], answers: Sequence[Sequence[str]], facts: Sequence[Facts]) -> OfRows:
    """The same of the strict reading."""
    return _totals(strict, outputs, answers, facts)


def _totals(
    each: Callable[[str, Sequence[str], Facts], float],
    outputs: Sequence[str],
    answers: Sequence[Sequence[str]],
    facts: Sequence[Facts],
) -> OfRows:
    right = np.array([each(*row) for row in zip(outputs, answers, facts)])
    codes, first = firsts([fact["group"] for fact in facts])
    every = np.ones(codes.max() + 1)
    np.minimum.at(every, codes, right)
    plain = np.array([int(fact["index"]) < ROTATION for fact in facts])

    def of(rows: np.ndarray) -> dict[str, float]:
        found = {"circular": float(np.mean(every[codes[rows[first[rows]]]]))}
        unturned = rows[plain[rows]]
        return found | ({"vanilla": mean_of(right, unturned)} if unturned.size else {})

    return of


def _present(value: Any) -> bool:
    """Absent options and hints are None, NaN or "nan"."""
    return isinstance(value, str) and value != "nan"


def _ask(row: Row, place: Place, ask: str, skips_nan: bool) -> list[Asked]:
    options = {letter: row[letter] for letter in "ABCDE" if _present(row.get(letter))}
    hint = row.get("hint")
    hinted = isinstance(hint, str) and bool(hint) and not (skips_nan and hint == "nan")
    question = f"{hint} {row['question']}" if hinted else row["question"]
    answers = (row["answer"],) if row.get("answer") in options else ()
    kind = row.get("L2-category") or row.get("category")
    facts = {"options": options, "index": row["index"]}
    text = f"{question} There are several options:\n{listed(options)}\n\n{ask}"
    return [Asked(str(row["index"]), text, answers, kind, str(row["index"] % ROTATION), facts)]


def _of(name: str, config: str, title: str, ask: str, max_new_tokens: int, skips_nan: bool) -> Benchmark:
    option = Field("a text, or nothing", lambda v: isinstance(v, (str, float))).or_nothing()
    answer = Field("the letter of an option", lambda v: LETTER.holds(v) or v == "nan").or_nothing()
    return Benchmark(
        name=name,
        title=title,
        aliases=(f"{name}_dev",),
        ids=("lmms-lab-encoder/MMBench", "lmms-lab/MMBench"),
        parts=(Part(config, "dev"),),
        fields={
            "index": WHOLE, "question": TEXT, "hint": option, "A": TEXT, "B": TEXT, "C": option, "D": option,
            "E": option, "answer": answer,
            "category": ANY_TEXT.or_nothing(), "L2-category": ANY_TEXT.or_nothing(), "image": PICTURE,
        },
        ask=functools.partial(_ask, ask=ask, skips_nan=skips_nan),
        max_new_tokens=max_new_tokens,
        lmms=Scorer(lmms, lmms_totals, "circular"),
        strict=Scorer(strict, strict_totals, "circular"),
        prompt="[{hint} ]{question} There are several options:\nA. ...\nB. ...\n\n" + ask,
        rows="4,329",
    )  # fmt: skip


BENCHMARKS = (
    _of("mmbench_en", "en", "MMBench, English, dev", ASK, 1024, skips_nan=True),
    _of(
        "mmbench_cn",
        "cn",
        "MMBench, Chinese, dev",
        "请直接使用所提供的选项字母作为答案回答。",
        256,
        skips_nan=False,
    ),
)
