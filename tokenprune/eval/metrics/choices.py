"""Questions with a fixed set of answers: a letter, or yes and no."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InputError
from .registry import metric


@metric("letter")
def letter(output: str, answers: Sequence[str]) -> float:
    """1 if the output is the letter of an answer, in either case, or starts with it as "B.", in upper case.

    The rule of ScienceQA in lmms-eval: "(B)" and "The answer is B" are wrong. `InputError` when an answer is not
    one letter.
    """
    text = output.strip()
    for answer in answers:
        if len(answer.strip()) != 1 or not answer.strip().isalpha():
            raise InputError(f"metric 'letter' takes answers of one letter, not {answer!r}")
    wanted = [answer.strip().upper() for answer in answers]
    return float(any(text.upper() == one or text.startswith(f"{one}.") for one in wanted))


@metric("yesno")
def yesno(output: str, answers: Sequence[str]) -> float:
    """1 if the output is an answer but for case and outer blanks, as lmms-eval scores POPE: "Yes." is not "yes"."""
    return float(output.strip().lower() in (answer.strip().lower() for answer in answers))
