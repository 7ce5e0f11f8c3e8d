"""What an answer looks like on the page: HTML of the text, of what differs, and of what it cost."""

from __future__ import annotations

import html

from ..compare.result import Answer
from .bars import bars_html, bars_of
from .live import Round
from .words import marked

EMPTY = '<div class="tp-card"><p class="tp-answer tp-faint">&nbsp;</p></div>'


def saying(text: str) -> str:
    """An answer in the making."""
    return f'<div class="tp-card"><p class="tp-answer">{lines(text)}<span class="tp-caret"></span></p></div>'


def base_card(found: Round) -> str:
    """The unpruned answer and what the pruned ones are measured against."""
    base = found.base
    if base is None:
        return EMPTY
    report = next((a.report for a in found.answers.values() if a.report is not None), None)
    count = len(base.tokens)
    told = [f"{count} token{'s' * (count != 1)} written"]
    if report is not None:
        told = [
            f"{report.before} visual tokens",
            f"{report.flops_unpruned / 1e9:.3g} GFLOP of prefill",
            f"{report.kv_bytes_unpruned / 2**20:.3g} MiB of KV cache",
            *told,
        ]
    return (
        f'<div class="tp-card tp-base"><p class="tp-faint">{html.escape(found.model)}, unpruned</p>'
        f'<p class="tp-answer">{lines(base.text) or "(nothing)"}</p>'
        f'<p class="tp-faint">{" · ".join(told)}</p></div>'
    )


def method_card(found: Round, place: int, waiting: bool = False) -> str:
    """A pruned answer, its differences from the unpruned one, and its bars. waiting: times are still to come."""
    answer = found.answers.get(place)
    if answer is None:
        return EMPTY
    if answer.error is not None:
        said = html.escape(answer.error)
        return f'<div class="tp-card"><p class="tp-status bad" role="alert">{said}</p></div>'
    base = found.base
    text = marked(answer.text, base.text if base else answer.text) or "(nothing)"
    bars = bars_html(bars_of(answer, found.speeds.get(place), waiting))
    return f'<div class="tp-card"><p class="tp-answer">{text}</p>{_verdict(answer)}{bars}</div>'


def _verdict(answer: Answer) -> str:
    if answer.agrees is None:
        return ""
    kind, said = ("good", "same answer") if answer.agrees else ("differs", "differs from the unpruned answer")
    return f'<p class="tp-verdict {kind}">{said}</p>'


def lines(text: str) -> str:
    """Text as HTML with its line feeds."""
    return html.escape(text).replace("\n", "<br>")
