"""Multiple choice: how options are listed, and how a letter is read from an answer."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import InputError
from ..metrics import plain
from ..metrics.text import one_line

LETTERS = string.ascii_uppercase
ASK = "Answer with the option's letter from the given choices directly."

_BARE = ("{}",)
_DRESSED = (
    "{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).",
)  # fmt: skip
_PHRASE = re.compile(r"(?:(?:answer|choice|option) is|I choose)(.*)", re.IGNORECASE | re.DOTALL)
_STATED = re.compile(r"(?:answer|option|choice|choose)(?:\s+is)?\s*:?\s*[(\[*]*([A-Z])\b(?!')", re.IGNORECASE)
_ALONE, _ARTICLE = r"(?<![\w']){0}(?![\w'])", r"\({0}\)|(?<![\w']){0}\.(?!\w)"
_OWN_LETTER = re.compile(r"^\s*[A-E][.):]\s*")
_LEADING = re.compile(r"[\s(\[*\"']*([A-Za-z])(?:[.,:;)\]*\"]|'(?!\w)|\s*$)")


def by_letter(options: Sequence[str]) -> dict[str, str]:
    """Options in order -> letter: option."""
    return dict(zip(LETTERS, options))


def listed(options: Mapping[str, str]) -> str:
    """ "A. a cat", "B. a dog", ... a line each."""
    return "\n".join(f"{letter}. {option}" for letter, option in options.items())


def right_letter(options: Mapping[str, str], index: Any) -> str:
    """The letter of the option with this number, from 0 on; `InputError` where there is none."""
    number = int(index)
    if not 0 <= number < len(options):
        raise InputError(f"the right answer is option {number} of {len(options)}, counted from 0")
    return list(options)[number]


def without_letter(option: str) -> str:
    """ "A. a cat" as "a cat"."""
    return _OWN_LETTER.sub("", option)


def extract(text: str, letters: str = "ABCDEFG") -> str:
    """The letter that lmms-eval's multiple-choice extractor reads from a text, or "".

    Capitals only. The first of these that is found decides: a letter that is the first word; one that is the last
    word; the last letter, even inside a word, behind "answer is", "choice is", "option is" or "I choose"; then the
    last one written (A), A. or A: or A) or with a blank behind it; then the last one anywhere.
    """
    text, one = text.strip(), f"[{letters}]"
    for pattern in (rf"({one})\b", rf".*\b({one})[\s.,;:!?'\"]*$"):
        if found := re.match(pattern, text, re.DOTALL):
            return found.group(1)
    if (stated := _PHRASE.search(text)) and (found := re.findall(one, stated.group(1))):
        return found[-1]
    for pattern in (rf"\(({one})\)", rf"({one})\.", rf"({one}):", rf"({one})\)", rf"({one}) ", rf"({one})"):
        if found := re.findall(pattern, text):
            return found[-1]
    return ""


def infer(text: str, options: Mapping[str, str], letters: str = "ABCDE") -> str:
    """The letter that MMBench's evaluation reads without a judge, or "".

    A word that is a bare letter, if there is one such letter; an A among more than three words may be the article and
    is not trusted. Then one dressed as "B.", "B,", "B:", "B)", "(B)", ":B", ... tried in this order, if it is the only
    one dressed so. Then the only option whose text the answer contains.
    """
    words = text.split()
    for form in (*_BARE, *_DRESSED):
        found = [letter for letter in letters if form.format(letter) in words]
        if len(found) == 1 and not (form in _BARE and "A" in words and len(words) > 3):
            return found[0]
    folded = text.lower()
    named = [letter for letter, option in options.items() if option.lower() in folded]
    return named[0] if len(named) == 1 else ""


def choice(text: str, options: Mapping[str, str]) -> str:
    """The option that an answer names beyond doubt, or "": the reading of every `strict` scorer.

    In this order: a letter in either case that the answer is or begins with, set off as "B", "(B)", "B.", "B: ...";
    a letter behind "answer is", "option", "I choose", the last of them; an option's text as the whole answer; the one
    capital that stands as a word of its own, an "A" only in brackets or with a full stop; the one option whose text
    occurs in the answer. A letter that no option has is none.
    """
    text = text.strip()
    if (found := _LEADING.match(text)) and found.group(1).upper() in options:
        return found.group(1).upper()
    stated = [letter.upper() for letter in _STATED.findall(text) if letter.isupper() or len(text.split()) < 4]
    if stated and stated[-1] in options:
        return stated[-1]
    said = plain(text)
    same = [letter for letter, option in options.items() if said and plain(option) == said]
    if same:
        return same[0] if len(same) == 1 else ""
    alone = {
        letter
        for letter in options
        if re.search((_ARTICLE if letter == "A" else _ALONE).format(letter), text)
    }
    if len(alone) == 1:
        return alone.pop()
    return _named(text, options) if not alone else ""


def _named(text: str, options: Mapping[str, str]) -> str:
    """The one option whose text occurs in the answer as whole words; one inside another that occurs does not count."""
    folded = one_line(text.casefold())
    texts = {letter: plain(option) for letter, option in options.items()}
    found = [
        letter
        for letter, option in texts.items()
        if option and re.search(rf"(?<!\w){re.escape(option)}(?!\w)", folded)
    ]
    inside = {a for a in found for b in found if texts[a] != texts[b] and texts[a] in texts[b]}
    found = [letter for letter in found if letter not in inside]
    return found[0] if len(found) == 1 else ""


def choice_score(text: str, answers: Sequence[str], options: Mapping[str, str]) -> float:
    """1 if `choice` reads a right letter."""
    return float(choice(text, options) in answers)
