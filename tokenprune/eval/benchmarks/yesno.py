"""Answers that are yes or no."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

_FIRST_WORD = re.compile(r"\W*([A-Za-z]+)")


def first_word(text: str) -> str:
    """ "yes" or "no" where that is the first word, else ""; "Yes." and "No, there is not" are answers too."""
    found = _FIRST_WORD.match(text)
    word = found.group(1).lower() if found else ""
    return word if word in ("yes", "no") else ""


def first_word_codes(texts: Sequence[str]) -> np.ndarray:
    """(n,) int8: 1 for yes, 0 for no, -1 for neither."""
    return np.array([{"yes": 1, "no": 0}.get(first_word(text), -1) for text in texts], dtype=np.int8)
