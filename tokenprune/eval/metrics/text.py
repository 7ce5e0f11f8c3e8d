"""Small normalisations of a text, each saying what it forgives."""

from __future__ import annotations

import string

EDGES = " .,;:!?\"'"
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)


def one_line(text: str) -> str:
    """Runs of blanks, tabs and line breaks as one blank, none at the ends."""
    return " ".join(text.split())


def plain(text: str) -> str:
    """Case, spacing and the punctuation around the text forgiven; that inside it is kept.

    A text of nothing but punctuation stays as it is, or "?" and an empty output would be the same answer.
    """
    folded = one_line(text.casefold())
    return one_line(folded.strip(EDGES)) or folded


def bare(text: str) -> str:
    """GQA's: stripped, in lower case, every ASCII punctuation mark deleted; articles and numbers as they are."""
    return text.strip().lower().translate(_DELETE_PUNCTUATION)
