"""Outputs that are broken whatever was asked: their rates stand beside the accuracy, which may hide them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import InputError

FLAGS = ("empty", "repeats", "unfinished", "replacement")
LONGEST_PHRASE = 5  # words
MOST_REPEATS = 10  # of a phrase, in a row
LONGEST_RUN = 30  # of a character

_RUN = re.compile(rf"(.)\1{{{LONGEST_RUN}}}", re.DOTALL)


def _loops(words: list[str]) -> bool:
    """Whether `words` end in a phrase of 1 to 5 words, more than 10 times in a row."""
    for length in range(1, LONGEST_PHRASE + 1):
        size = length * (MOST_REPEATS + 1)
        if len(words) >= size and words[-size:] == words[-length:] * (MOST_REPEATS + 1):
            return True
    return False


def degenerate(output: str, max_new_tokens_hit: bool) -> set[str]:
    """What is wrong with the form of one output, a set of `FLAGS`.

    "empty": no visible character. "repeats": it ends in a phrase of 1 to 5 words more than 10 times in a row, or holds
    a character more than 30 times in a row (a long rule in a transcription does too). "unfinished": generation
    stopped at max_new_tokens. "replacement": U+FFFD, a character that the tokens did not spell.
    """
    words = output.split()
    # A limit can fall inside a word and so hide the loop.
    repeats = _loops(words) or (max_new_tokens_hit and _loops(words[:-1])) or _RUN.search(output) is not None
    found = {
        "empty": not words,
        "repeats": repeats,
        "unfinished": bool(max_new_tokens_hit),
        "replacement": "\ufffd" in output,
    }
    return {flag for flag, holds in found.items() if holds}


def degenerate_rates(outputs: Sequence[str], max_new_tokens_hit: Sequence[bool]) -> dict[str, float]:
    """The share of outputs with each flag of `degenerate`, and with "any" of them; one entry per sample in both."""
    if not outputs or len(outputs) != len(max_new_tokens_hit):
        raise InputError(
            f"one entry per sample is needed: {len(outputs)} outputs, {len(max_new_tokens_hit)} limits hit"
        )
    flags = [degenerate(output, hit) for output, hit in zip(outputs, max_new_tokens_hit)]
    rates = {flag: sum(flag in found for found in flags) / len(flags) for flag in FLAGS}
    return rates | {"any": sum(map(bool, flags)) / len(flags)}
