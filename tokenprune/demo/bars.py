"""What an answer cost, as small bars against the unpruned model: plain HTML, readable without colour or pictures."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from ..compare.captions import reads
from ..compare.result import Answer, Speed
from ..tokens import PruneReport


@dataclass(frozen=True)
class Bar:
    """A share of what the unpruned model needs; None: not known (yet)."""

    label: str
    share: float | None
    text: str
    title: str = ""
    sure: bool = True  # that a share above one is no accident


def bars_of(answer: Answer, speed: Speed | None, waiting: bool = False) -> list[Bar]:
    """Tokens, FLOPs, KV cache, prefill and decode of a pruned answer. waiting: times are still to come."""
    report = answer.report
    if report is None:
        return []
    tokens = report.equivalent_tokens * len(report.images)
    count = f"{tokens:.0f} of {report.before}"
    out = [Bar("tokens", report.keep_share, count, "visual tokens, mean over the decoder layers")]
    if report.fixation is not None:
        out = [Bar("read", report.fixation.read_share, reads(answer), "visual keys a decode step reads")]
    out += [
        Bar(
            "FLOPs",
            report.flops / max(report.flops_unpruned, 1),
            f"{report.flops / 1e9:.3g} of {report.flops_unpruned / 1e9:.3g} G",
            "of the language model's prefill, text included",
        ),
        Bar(
            "KV cache",
            report.kv_bytes / max(report.kv_bytes_unpruned, 1),
            kv_text(report),
            "after the answer",
        ),
    ]
    for label, ratio, what in (
        ("prefill", speed and speed.prefill, "to the first token: tower, selection and prompt"),
        ("decode", speed and speed.decode, "a token, after the first"),
    ):
        if ratio is not None:
            spread = f"median of {ratio.pairs} pairs, quartiles {ratio.low:.2f} to {ratio.high:.2f}"
            text = f"of {1000 * ratio.base_seconds:.3g} ms"
            out.append(Bar(label, ratio.median, text, f"{what}; {spread}", sure=ratio.low > 1))
        elif waiting:
            out.append(Bar(label, None, "measuring", what))
    return out


def kv_text(report: PruneReport) -> str:
    return f"{report.kv_bytes / 2**20:.3g} of {report.kv_bytes_unpruned / 2**20:.3g} MiB"


def bars_html(bars: Sequence[Bar]) -> str:
    """A list of bars; a share above one is drawn full, and marked where it is no accident."""
    return f'<ul class="tp-bars">{"".join(map(_bar, bars))}</ul>' if bars else ""


def _bar(bar: Bar) -> str:
    share = bar.share
    percent = "" if share is None else f"{100 * share:.0f}%"
    width = 0.0 if share is None else 100 * min(max(share, 0.0), 1.0)
    over = " tp-over" if bar.sure and share is not None and share > 1.005 else ""
    label, text, title = html.escape(bar.label), html.escape(bar.text), html.escape(bar.title, quote=True)
    return (
        f'<li title="{title}"><span class="tp-label">{label}</span>'
        f'<span class="tp-track{over}" aria-hidden="true"><span style="width:{width:.1f}%"></span></span>'
        f'<span class="tp-share">{percent}</span><span class="tp-text">{text}</span></li>'
    )
