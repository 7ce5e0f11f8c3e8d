"""Two curves of a run: score against equivalent tokens, and score against prefill time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..viz.lines import COLOURS, GREY
from .results import Results
from .rows import BLIND, NONE

MARKERS = "osD^vPXd"


def write_plots(results: Results) -> list[Path]:
    """`tokens.png` and, after an efficiency pass, `prefill.png`; nothing without matplotlib or right answers."""
    written = []
    for name, draw in (("tokens", tokens_figure), ("prefill", prefill_figure)):
        figure = draw(results.body)
        if figure is not None:
            written.append(results.folder / f"{name}.png")
            figure.savefig(written[-1], dpi=150)
    return written


def tokens_figure(body: dict[str, Any], labels: Collection[str] | None = None) -> Any:
    """Score, with its band, over equivalent tokens as a matplotlib figure; None without matplotlib or right answers.

    labels: the rows that are drawn; None: all of them. A row has the same colour whoever else is drawn.
    """
    curves = _curves(body)
    drawn = [label for label in curves if labels is None or label in labels]
    made = _figure() if drawn else None
    if made is None:
        return None
    figure, axes = made
    _reference(axes, body)
    for place, (label, rows) in enumerate(curves.items()):
        if label in drawn:
            x = [100 * r["tokens"]["equivalent"] / r["tokens"]["before"] for r in rows]
            _curve(axes, place, label, x, rows, bands=True)
    axes.set_xscale("log")
    keeps = {r["keep"] for label in drawn for r in curves[label]}
    ticks = sorted(round(100 * k, 1) for k in keeps if isinstance(k, float))
    if ticks:
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()
    _finish(axes, body, "equivalent visual tokens (layer average), % of all")
    return figure


def prefill_figure(body: dict[str, Any]) -> Any:
    """Score over prefill time; None where nothing was timed, without matplotlib or right answers."""
    curves = _curves(body)
    costs = {(c["label"], c["keep"]): c for c in (body["efficiency"] or {}).get("rows", ())}
    made = _figure() if curves and costs else None
    if made is None:
        return None
    figure, axes = made
    _reference(axes, body)
    for place, (label, rows) in enumerate(curves.items()):
        timed = [r for r in rows if (label, r["keep"]) in costs]
        x = [costs[label, r["keep"]]["prefill"]["median"] for r in timed]
        _curve(axes, place, label, x, timed, bands=False)
    _finish(axes, body, "prefill time, share of the unpruned model's")
    return figure


def _figure() -> tuple[Any, Any] | None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    return figure, figure.subplots()


def _curves(body: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    curves: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in body["rows"]:
        if row["keep"] is not None and row.get("score"):
            curves[row["label"]].append(row)
    for rows in curves.values():
        rows.sort(key=lambda r: r["tokens"]["equivalent"])
    return dict(curves)


def _curve(
    axes: Any, place: int, label: str, x: list[float], rows: list[dict[str, Any]], bands: bool
) -> None:
    colour = COLOURS[place % len(COLOURS)]
    dashed = "--" if rows and rows[0]["baseline"] else "-"
    y = [100 * r["score"]["value"] for r in rows]
    axes.plot(x, y, dashed, marker=MARKERS[place % len(MARKERS)], color=colour, label=label, markersize=5)
    if bands:
        low, high = ([100 * r["score"][end] for r in rows] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def _reference(axes: Any, body: dict[str, Any]) -> None:
    for row in body["rows"]:
        if row["label"] in (NONE, BLIND) and row.get("score"):
            style = "-" if row["label"] == NONE else ":"
            axes.axhline(100 * row["score"]["value"], color=GREY, linestyle=style, linewidth=1)
            axes.annotate(
                "unpruned" if row["label"] == NONE else "blind",
                (0.01, 100 * row["score"]["value"]),
                xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
                color=GREY, fontsize=8,
            )  # fmt: skip


def _finish(axes: Any, body: dict[str, Any], x: str) -> None:
    model, suite = body["model"], body["suite"]
    axes.set_xlabel(x)
    axes.set_ylabel(f"{suite['metric']} score, points")
    title = f"{model['name']} {model['version'] or ''} on {suite['name']}, {suite['samples']} samples"
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
