"""Two answers side by side: which words one has and the other has not."""

from __future__ import annotations

import difflib
import html
import re


def marked(text: str, other: str) -> str:
    """`text` as HTML with the words that differ from `other` marked, and a caret where some of other's are missing.

    Case and punctuation at a word's ends make no difference, as in `compare.same`.
    """
    mine, theirs = _pieces(text), _pieces(other)
    matcher = difflib.SequenceMatcher(None, [_plain(w) for w in theirs], [_plain(w) for w in mine], False)
    out: list[str] = []
    for what, i, k, a, b in matcher.get_opcodes():
        words = " ".join(html.escape(w) for w in mine[a:b])
        gone = html.escape(" ".join(theirs[i:k]), quote=True)
        if what == "equal":
            out.append(words)
        elif what == "delete":
            out.append(f'<del title="missing: {gone}" aria-label="missing: {gone}">&#8248;</del>')
        else:
            title = f' title="instead of: {gone}"' if gone else ' title="not in the unpruned answer"'
            out.append(f"<mark{title}>{words}</mark>")
    return " ".join(out).replace(" \n ", "<br>").replace("\n", "<br>")


def similarity(text: str, other: str) -> float:
    """Share of words in common, in order, of both answers together: 1 for the same ones, 0 for none."""
    one, two = ([_plain(w) for w in _pieces(t) if w != "\n"] for t in (text, other))
    return difflib.SequenceMatcher(None, one, two, False).ratio() if one or two else 1.0


def _pieces(text: str) -> list[str]:
    """Words, and line feeds, which pages have."""
    return re.findall(r"\n|[^\s]+", text)


def _plain(word: str) -> str:
    return word if word == "\n" else word.strip(" .,;:!?\"'").casefold()
