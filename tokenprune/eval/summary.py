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
from .totals import reported

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
        + "\n\nScores as papers report them; a published one follows the slash. "
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
        line = [place[0], keep_text(place[1])]
        shares = []
        for rows, run in zip(found, results):
            line.append(_cell(rows.get(place), run.body))
            shares.append(_retained(rows.get(place), rows[NONE, None], run.body))
        every = [share for share in shares if share is not None]
        line.append(percent(mean(every)) if len(every) == len(shares) else "")
        lines.append(line + [f"{theirs[place]:g}" if place in theirs else ""] * bool(theirs))
    return heads, lines


def _order(places: Sequence[Place]) -> Any:
    """Methods as they first come, the keeps of each together."""
    first = {label: i for i, label in reversed(list(enumerate(p[0] for p in places)))}
    return lambda place: first[place[0]]


def _cell(row: dict[str, Any] | None, body: dict[str, Any]) -> str:
    if row is None:
        return ""
    ours = _reported(row, body)
    text = "-" if ours is None else f"{ours:.1f}"
    return text if row.get("published") is None else f"{text} / {row['published']:g}"


def _retained(row: dict[str, Any] | None, plain: dict[str, Any], body: dict[str, Any]) -> float | None:
    ours, whole = (None if r is None else _reported(r, body) for r in (row, plain))
    return None if ours is None or not whole else ours / whole


def _reported(row: dict[str, Any], body: dict[str, Any]) -> float | None:
    return reported(row, body["suite"]["metric"], (body.get("published") or {"total": ""})["total"])


def _what(body: dict[str, Any]) -> str:
    suite = body["suite"]
    subset = ", a subset" if suite["subset"] else ""
    return f"{body['model']['name']} on {suite['samples']} samples of {suite['name']}{subset}"
