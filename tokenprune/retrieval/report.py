"""A run of retrieval as a table in Markdown and a plot of mAP against bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..viz.lines import GREY

HEADS = ("vectors", "seeds", "K", "bytes", "shortlist", "mAP", "R@1", "R@5", "R@10", "of full", "query all")
COLOURS = {"attention": "#d55e00", "attention_fps": "#0072b2", "fps": "#009e73", "density": "#cc79a7"}


def cells_of(row: dict[str, Any]) -> list[str]:
    """A row's cells under `HEADS`; scores in points, mAP with its 95 % interval."""

    def points(name: str) -> str:
        return f"{100 * row[name]:.1f}" if row.get(name) is not None else ""

    return [
        row["kind"], row["label"], str(row.get("k", "")), f"{row['bytes']:,}", str(row.get("shortlist", "")),
        f"{points('map')} ({points('low')} to {points('high')})", points("r1"), points("r5"), points("r10"),
        f"{points('of_full')} %" if "of_full" in row else "", points("map_query_all"),
    ]  # fmt: skip


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    right = ["---" if place < 2 else "---:" for place in range(len(HEADS))]
    lines = [HEADS, right, *(cells_of(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_report(body: dict[str, Any], folder: Path) -> list[Path]:
    """`report.md` and, with matplotlib, `bytes.png`."""
    suite, tower = body["suite"], body["tower"]
    path = folder / "report.md"
    path.write_text(
        f"# {tower['name']} {tower['version'] or ''} on {suite['name']}\n\n{suite['gallery']} gallery pictures, "
        f"{suite['queries']} queries; {tower['patches']} patches of {tower['width']} dimensions; "
        f"{body['protocol']['match']}; first stage: {body['protocol']['first_stage']}. mAP in points with a 95 % "
        f"interval over query craters.\n\n{table_of(body['rows'])}",
        encoding="utf-8",
    )
    plot = folder / "bytes.png"
    return [path, plot] if write_plot(body, plot) else [path]


def write_plot(body: dict[str, Any], path: Path) -> bool:
    """mAP against bytes of a picture; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    curves: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    whole = [row for row in body["rows"] if row["kind"] == "all"]
    for row in body["rows"]:
        if row["kind"] in ("selected", "aggregated"):
            curves[row["kind"], row["label"]].append(row)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for (kind, rule), rows in curves.items():
        rows = sorted([*rows, *whole], key=lambda r: r["bytes"])
        x, y = [r["bytes"] for r in rows], [100 * r["map"] for r in rows]
        style = "-o" if kind == "aggregated" else "--o"
        axes.plot(x, y, style, color=COLOURS.get(rule, GREY), label=f"{rule}, {kind}", markersize=4)
    singles = [row for row in body["rows"] if row["kind"] == "single"]
    for row, marker in zip(singles, "^sd"):
        axes.plot(row["bytes"], 100 * row["map"], marker, color="black", label=f"single: {row['label']}")
    axes.set_xscale("log")
    axes.set_xlabel("bytes of a picture in the index (half precision)")
    axes.set_ylabel("mAP, points")
    suite, tower = body["suite"], body["tower"]
    title = f"{tower['name']} {tower['version'] or ''} on {suite['name']}, {suite['gallery']} pictures"
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    return True
