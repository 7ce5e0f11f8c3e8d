"""Several runs in one table: rows down, runs across."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from .journal import write_file
from .report import keep_text, percent, table
from .results import Results
from .rows import NONE

Place = tuple[str, float | int | None]


def write_summary(
    folder: Path, name: str, results: Sequence[Results], retained: dict[str, Any] | None = None
) -> Path:
    """`report.md` over the reports of the runs, which lie in folders beside it."""
    heads, lines = summary(results, retained)
    links = [f"- [{r.body['name']}]({r.folder.name}/report.md): {_what(r.body)}" for r in results]
    told = f"\n\nPublished means: {retained['source']}, of {retained['model']}." if retained else ""
    text = (
        f"# {name}\n\n"
        + "\n".join(links)
        + "\n\nScores in points; where a paper gives one, it follows the slash. "
        "Retained: mean over the runs of the share of the unpruned score, for rows that all of them have."
        + told
    )
    write_file(folder / "report.md", f"{text}\n\n{table(heads, lines, left=2)}\n")
    return folder / "report.md"


def summary(
    results: Sequence[Results], retained: dict[str, Any] | None = None
) -> tuple[list[str], list[list[str]]]:
    """(heads, lines): method, keep, a score for every run, the mean retained share and, of a paper, its own."""
    found: list[dict[Place, dict[str, Any]]] = [
        {(r["label"], r["keep"]): r for r in run.rows} for run in results
    ]
    theirs = {(p["label"], p["keep"]): p["value"] for p in (retained or {"rows": []})["rows"]}
    heads = ["method", "keep", *(r.body["name"] for r in results), "retained"] + ["published"] * bool(theirs)
    places = dict.fromkeys(place for rows in found for place in rows)
    lines = []
    for place in sorted(places, key=_order(list(places))):
        rows = [run.get(place) for run in found]
        shares = [_retained(place[0], row) for row in rows]
        every = [s for s in shares if s is not None]
        line = [place[0], keep_text(place[1]), *map(_cell, rows)]
        line.append(percent(mean(every)) if len(every) == len(rows) else "")
        lines.append(line + [f"{theirs[place]:g}" if place in theirs else ""] * bool(theirs))
    return heads, lines


def _order(places: Sequence[Place]) -> Any:
    """Methods as they first come, the keeps of each together."""
    first = {label: i for i, label in reversed(list(enumerate(p[0] for p in places)))}
    return lambda place: first[place[0]]


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    score = row.get("score")
    ours = "-" if score is None else f"{100 * score['value']:.1f}"
    return ours if row.get("published") is None else f"{ours} / {row['published']:g}"


def _retained(label: str, row: dict[str, Any] | None) -> float | None:
    if row is None:
        return None
    return 1.0 if label == NONE and "score" in row else (row.get("retained") or {}).get("value")


def _what(body: dict[str, Any]) -> str:
    suite = body["suite"]
    subset = ", a subset" if suite["subset"] else ""
    return f"{body['model']['name']} on {suite['samples']} samples of {suite['name']}{subset}"
