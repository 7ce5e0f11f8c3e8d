"""`tokenprune eval`, `rescore`, `report` and `diff`: runs of the benchmark and their figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from .app import app, console, warn

if TYPE_CHECKING:
    from ..eval.diff import Difference
    from ..eval.results import Results


@app.command("eval")
def evaluate_command(
    config: str = typer.Argument(..., help="A YAML file, or the name of a bundled one such as scenes."),
    model: str = typer.Option(None, "--model", help="Embedded model, local folder or Hugging Face id."),
    methods: str = typer.Option(None, "--methods", help="Comma-separated, instead of the file's."),
    keep: str = typer.Option(None, "--keep", help="Shares or counts, such as 0.5,25%,64."),
    limit: int = typer.Option(None, "--limit", help="Most samples; whole pictures, marked as a subset."),
    batch: int = typer.Option(None, "--batch", min=1, help="Samples answered together."),
    metric: str = typer.Option(None, "--metric", help="Another metric than the suite's."),
    efficiency: int = typer.Option(None, "--efficiency", min=0, help="Samples to time afterwards; 0: none."),
    device: str = typer.Option(None, "--device", help="cpu, cuda, cuda:1, ..."),
    dtype: str = typer.Option(None, "--dtype", help="auto, float32, bfloat16 or float16."),
    threads: int = typer.Option(None, "--threads", min=1, help="Torch threads."),
    out: Path = typer.Option(None, "--out", help="The run's folder; default out/eval/NAME."),
    force: bool = typer.Option(False, "--force", help="Go on in a folder that holds another run."),
    max_failures: int = typer.Option(0, "--max-failures", min=0, help="Exit with 1 above this many."),
) -> None:
    """Answer a suite unpruned, blind, and pruned by every method at every budget; write tables and plots.

    A run that stopped goes on with the same command. Exit code 1: more samples failed than allowed.
    """
    from ..compare.settings import parse_keeps
    from ..eval import evaluate, find_config, load_config, write_report
    from ..retrieval.config import is_retrieval
    from .progress import hush, progress
    from .retrieval import run_retrieval

    path = find_config(config)
    if is_retrieval(path):
        run_retrieval(path, out=out, batch=batch, threads=threads)
        return
    run = load_config(path)
    given: dict[str, Any] = {
        "model": model, "limit": limit, "batch": batch, "metric": metric, "efficiency": efficiency,
        "device": device, "dtype": dtype, "threads": threads,
    }  # fmt: skip
    given["methods"] = None if methods is None else [m.strip() for m in methods.split(",") if m.strip()]
    given["keeps"] = None if keep is None else parse_keeps(keep)
    settings = {**vars(run), **{k: v for k, v in given.items() if v is not None}}
    hush()
    with progress("evaluating") as tick:
        results = evaluate(**settings, out=out or Path("out/eval") / run.name, force=force, tick=tick)
    written = write_report(results)
    print_results(results, console())
    for path in [results.folder / "results.json", *written]:
        console().print(f"wrote {path}", style="dim", markup=False, soft_wrap=True)
    _judge_failures(results, max_failures)


@app.command()
def rescore(
    run: Path = typer.Argument(..., help="A run's folder."),
    metric: str = typer.Option(None, "--metric", help="Another metric than the run's."),
    max_failures: int = typer.Option(0, "--max-failures", min=0, help="Exit with 1 above this many."),
) -> None:
    """Score a run's stored answers again, without the model."""
    from ..eval import score_run, write_report

    results = score_run(run, metric)
    write_report(results)
    print_results(results, console())
    _judge_failures(results, max_failures)


@app.command()
def report(run: Path = typer.Argument(..., help="A run's folder, finished or not.")) -> None:
    """Write a run's report and plots again, and print its table."""
    from ..eval import score_run, write_report

    results = score_run(run)
    written = write_report(results)
    print_results(results, console())
    for path in written:
        console().print(f"wrote {path}", style="dim", markup=False, soft_wrap=True)


@app.command()
def diff(
    a: Path = typer.Argument(..., help="A run's folder."),
    b: Path = typer.Argument(..., help="Another's, or the same."),
    rows: list[str] = typer.Option([], "--row", help="A row of A, and a row of B; default: all they share."),
    margin: float = typer.Option(0.01, "--margin", help="Loss that still counts as non-inferior."),
    as_json: bool = typer.Option(False, "--json", help="Plain data instead of a table."),
) -> None:
    """Compare two runs of one suite, sample by sample."""
    from ..errors import InputError
    from ..eval import compare_runs

    if len(rows) not in (0, 2):
        raise InputError("--row is given twice: a row of A, then a row of B")
    found = compare_runs(a, b, rows=(rows[0], rows[1]) if rows else None, margin=margin)
    if as_json:
        typer.echo(json.dumps([d.to_dict() for d in found], indent=1))
    else:
        print_differences(found, console())


def print_results(results: Results, screen: Console) -> None:
    """The table of a run: one line a row."""
    from ..eval.report import interval_text, keep_text, percent

    body = results.body
    graded = any("score" in r for r in results.rows)
    suite = body["suite"]
    subset = ", subset" if suite["subset"] else ""
    screen.print(
        f"\n[bold]{body['model']['name']}[/] on [bold]{suite['name']}[/], {suite['samples']} samples{subset}, "
        f"metric {suite['metric']}"
    )
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("method")
    for head in ("keep", "tokens", *(["score", "against unpruned"] if graded else []), "agrees", "failed"):
        table.add_column(head, justify="right", no_wrap=True)
    last = None
    for row in results.rows:
        if last is not None and last != row["label"]:
            table.add_section()
        cells = [row["label"] if row["label"] != last else "", keep_text(row["keep"])]
        last = row["label"]
        if row["state"] != "ok":
            floor = f"- (floor {percent(row['floor'])} %)" if row["floor"] else "-"
            table.add_row(*cells, floor, *[""] * (4 if graded else 2))
            continue
        tokens = row.get("tokens")
        cells.append("" if tokens is None else f"{tokens['equivalent']:.1f}")
        if graded:
            cells += [interval_text(row.get("score")), interval_text(row.get("difference"), signed=True)]
        cells.append(percent(row.get("agreement")) if row["label"] != "none" else "")
        table.add_row(*cells, str(row["failed"]) if row["failed"] else "")
    screen.print(table)


def print_differences(found: list[Difference], screen: Console) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("A", "B", "n", "A", "B", "B - A (95 %)", "lost", "gained", "p", "agree", "verdict"):
        table.add_column(head, justify="right" if head not in ("A", "B", "verdict") else "left")
    for d in found:
        p = "" if d.p is None else f"{d.p:.3f}"
        i = d.difference
        table.add_row(
            d.a, d.b, str(d.samples), f"{100 * d.score_a:.1f}", f"{100 * d.score_b:.1f}",
            f"{100 * i.value:+.1f} ({100 * i.low:+.1f} to {100 * i.high:+.1f})", str(d.lost), str(d.gained), p,
            f"{100 * d.agreement:.1f}", d.verdict,
        )  # fmt: skip
    screen.print(table)


def _judge_failures(results: Results, allowed: int) -> None:
    for failure in results.body["failures"]:
        warn(
            f"{failure['reason']} ({len(failure['samples'])} samples, up to {failure['rows']} rows; not scored)"
        )
    failed = {s for f in results.body["failures"] for s in f["samples"]}
    if len(failed) > allowed:
        raise typer.Exit(1)
