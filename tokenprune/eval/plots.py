"""Two curves of a run: score against equivalent tokens, and score against prefill time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from statistics import median
from typing import Any

from ..viz.lines import COLOURS, GREY
from .results import Results
from .rows import BLIND, NONE

MARKERS = "osD^vPXd"
FEW = 8
"""With more curves than this no interval is drawn around each: one says how wide they are."""


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
    """Score over equivalent tokens as a matplotlib figure; None without matplotlib or right answers.

    labels: the rows that are drawn; None: all of them. A row has the same colour and marker whoever else is drawn.
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
            _curve(axes, place, label, x, rows, bands=len(drawn) <= FEW)
    if len(drawn) > FEW:
        _width(axes, [row for label in drawn for row in curves[label]])
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
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
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
    marker = MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]  # no two of the first 64 are alike
    dashed = "--" if rows and rows[0]["baseline"] else "-"
    y = [100 * r["score"]["value"] for r in rows]
    axes.plot(x, y, dashed, marker=marker, color=colour, label=label, markersize=5)
    if bands:
        low, high = ([100 * r["score"][end] for r in rows] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def _width(axes: Any, rows: list[dict[str, Any]]) -> None:
    """One bar as long as the median row's interval, in the corner without curves."""
    half = median(50 * (row["score"]["high"] - row["score"]["low"]) for row in rows)
    low, high = axes.get_ylim()
    middle = low + half + 0.04 * (high - low)
    place = axes.get_yaxis_transform()  # x in shares of the axes, y in points
    axes.errorbar([0.97], [middle], [half], color=GREY, capsize=3, linewidth=1, transform=place)
    said = f"95 % interval, median: ± {half:.1f}"
    axes.text(0.955, middle, said, color=GREY, fontsize=8, ha="right", va="center", transform=place)


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
    # From top to bottom as the curves end on the right.
    curves = sorted(axes.get_lines(), key=lambda line: -line.get_ydata()[-1])
    curves = [line for line in curves if not line.get_label().startswith("_")]
    axes.figure.legend(handles=curves, loc="outside right upper", fontsize=8, frameon=False, handlelength=2.6)
