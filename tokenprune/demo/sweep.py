"""One question, one method, fewer and fewer tokens: where the answer turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..chat import Chat, Medium
from ..compare.result import Answer
from ..compare.settings import keep_label
from ..methods import Reducer
from .desk import Job, Put
from .live import ask_all
from .words import similarity

KEEPS = "75%, 50%, 33.3%, 25%, 16.7%, 11.1%, 5.6%, 2.8%"
HEADS = ("keep", "tokens read", "answer", "same answer", "words in common")


def sweep(
    chat: Chat,
    medium: Medium,
    question: str,
    methods: Sequence[Reducer],
    put: Put,
    job: Job,
    max_new_tokens: int,
) -> None:
    """`ask_all` of one method at every budget, the largest first."""
    ask_all(chat, medium, question, methods, put, job, max_new_tokens=max_new_tokens)


def line_of(answer: Answer, base: Answer) -> list[str]:
    """One line of the table, in the order of `HEADS`."""
    label = keep_label(answer.keep or 1.0)
    if answer.error is not None or answer.report is None:
        return [label, "", answer.error or "", "", ""]
    return [
        label,
        f"{100 * read_share(answer):.3g} %",
        answer.text or "(nothing)",
        "yes" if answer.agrees else "no",
        f"{100 * similarity(answer.text, base.text):.0f} %",
    ]


def read_share(answer: Answer) -> float:
    """Visual tokens that are read on layer average, as a share of all."""
    assert answer.report is not None
    look = answer.report.fixation
    return answer.report.keep_share if look is None else look.read_share


def curve(answers: Sequence[Answer], base: Answer) -> Any:
    """Agreement over tokens read as a matplotlib figure; None where no answer came."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    told = sorted((a for a in answers if a.error is None and a.report is not None), key=read_share)
    if not told:
        return None
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    x, y = [100 * read_share(a) for a in told], [100 * similarity(a.text, base.text) for a in told]
    axes.plot(x, y, color="#0072b2", linewidth=1.5, zorder=1)
    for agrees, face, label in ((True, "#0072b2", "same answer"), (False, "white", "another answer")):
        at = [i for i, a in enumerate(told) if bool(a.agrees) == agrees]
        if at:
            points = [[values[i] for i in at] for values in (x, y)]
            axes.scatter(*points, s=48, facecolor=face, edgecolor="#0072b2", zorder=2, label=label)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{v:.3g}" for v in x], fontsize=8)
    axes.minorticks_off()
    axes.set_ylim(-5, 108)
    axes.yaxis.set_major_formatter(PercentFormatter())
    axes.set_xlabel("visual tokens read (layer average), % of all")
    axes.set_ylabel("words in common\nwith the unpruned answer")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure
