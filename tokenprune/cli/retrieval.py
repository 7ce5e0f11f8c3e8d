"""`tokenprune eval` on a configuration of retrieval: rankings instead of answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..errors import InputError
from .app import console
from .progress import hush, progress


def run_retrieval(path: Path, out: Path | None, batch: int | None, threads: int | None) -> None:
    """Evaluate, write `results.json`, `report.md` and the plot, and print the table."""
    from ..bench.machine import machine, versions
    from ..retrieval.config import load_config
    from ..retrieval.evaluate import evaluate
    from ..retrieval.report import write_report

    run = load_config(path)
    settings = {
        **vars(run),
        **{k: v for k, v in {"batch": batch, "threads": threads}.items() if v is not None},
    }
    hush()
    with progress("evaluating") as tick:
        body = evaluate(**settings, tick=tick)
    body |= {"versions": versions(), "machine": machine()}
    folder = out or Path("out/eval") / run.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(
            json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
        written = write_report(body, folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    print_retrieval(body, console())
    for file in [folder / "results.json", *written]:
        console().print(f"wrote {file}", style="dim", markup=False, soft_wrap=True)


def print_retrieval(body: dict[str, Any], screen: Console) -> None:
    """One line a row."""
    from ..retrieval.report import HEADS, cells_of

    suite = body["suite"]
    screen.print(
        f"\n[bold]{body['tower']['name']}[/] on [bold]{suite['name']}[/], {suite['gallery']} pictures, "
        f"{suite['queries']} queries, {body['protocol']['match']}"
    )
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, head in enumerate(HEADS):
        table.add_column(head, justify="left" if place < 2 else "right", no_wrap=True)
    last = None
    for row in body["rows"]:
        if last is not None and row["kind"] != last:
            table.add_section()
        last = row["kind"]
        table.add_row(*cells_of(row))
    screen.print(table)
