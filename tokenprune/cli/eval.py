"""`tokenprune eval`, `rescore`, `report` and `diff`: runs of the benchmark and their figures."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import InputError, TokenPruneError
from .app import app, console, warn

if TYPE_CHECKING:
    from ..eval import RunConfig, Shard
    from ..eval.diff import Difference
    from ..eval.results import Results


@app.command("eval")
def evaluate_command(
    config: str = typer.Argument(None, help="A YAML file, or the name of a bundled one such as scenes."),
    model: str = typer.Option(None, "--model", help="Embedded model, local folder or Hugging Face id."),
    methods: str = typer.Option(None, "--methods", help="Instead of the file's: name, name(hyper=value), ..."),
    keep: str = typer.Option(None, "--keep", help="Shares or counts, such as 0.5,25%,64."),
    limit: int = typer.Option(None, "--limit", help="Most samples; whole pictures, marked as a subset."),
    batch: int = typer.Option(None, "--batch", min=1, help="Samples answered together."),
    metric: str = typer.Option(None, "--metric", help="Another metric than the suite's."),
    efficiency: int = typer.Option(None, "--efficiency", min=0, help="Samples to time afterwards; 0: none."),
    device: str = typer.Option(None, "--device", help="cpu, cuda, cuda:1, ..."),
    dtype: str = typer.Option(None, "--dtype", help="auto, float32, bfloat16 or float16."),
    device_map: str = typer.Option(None, "--device-map", help="Such as auto: one model over several GPUs."),
    threads: int = typer.Option(None, "--threads", min=1, help="Torch threads."),
    only: str = typer.Option(None, "--only", help="Of a file with several runs those of these names."),
    data: Path = typer.Option(None, "--data", help="A folder of datasets: DATA/pope is read and not the hub."),
    shard: str = typer.Option(None, "--shard", help="0/3: the first of three processes; launchers tell it."),
    out: Path = typer.Option(None, "--out", help="The run's folder; default out/eval/NAME."),
    force: bool = typer.Option(False, "--force", help="Go on in a folder that holds another run."),
    max_failures: int = typer.Option(0, "--max-failures", min=0, help="Exit with 1 above this many."),
    check: str = typer.Option(
        None, "--check", help="Only read the first row of a benchmark such as pope, or of a YAML file's suite."
    ),
    root: str = typer.Option(None, "--root", help="With --check: the file or folder with its rows."),
    media: str = typer.Option(None, "--media", help="With --check: the folder of its clips."),
) -> None:
    """Answer a suite unpruned, blind, and pruned by every method at every budget; write tables and plots.

    A run that stopped goes on with the same command. Exit code 1: more samples failed than allowed.
    """
    from ..compare.settings import parse_keeps, split_methods
    from ..errors import InputError
    from ..eval import Shard, find_config, load_plan, with_data, write_summary
    from ..retrieval.config import is_retrieval
    from .retrieval import run_retrieval

    if check is not None:
        print_check(check, root, media, console())
        return
    if config is None:
        raise InputError("name a YAML file or a bundled configuration such as scenes, or a benchmark with --check")
    path = find_config(config)
    if is_retrieval(path):
        run_retrieval(path, out=out, batch=batch, threads=threads)
        return
    plan = load_plan(path)
    given: dict[str, Any] = {
        "model": model, "limit": limit, "batch": batch, "metric": metric, "efficiency": efficiency,
        "device": device, "dtype": dtype, "device_map": device_map, "threads": threads,
    }  # fmt: skip
    given["methods"] = None if methods is None else [*map(_item, split_methods(methods))]
    given["keeps"] = None if keep is None else parse_keeps(keep)
    given = {k: v for k, v in given.items() if v is not None}
    place = Shard.from_environment() if shard is None else Shard.parse(shard)
    home, several = out or Path("out/eval") / plan.name, len(plan.runs) > 1
    chosen = plan.runs if only is None else [_named(plan.runs, n.strip()) for n in only.split(",")]
    chosen = chosen if data is None else [with_data(run, data) for run in chosen]
    done: list[Results] = []
    failures = 0
    for run in chosen:
        try:
            done.append(_run({**vars(run), **given}, home / run.name if several else home, place, force))
        except TokenPruneError as error:
            if not several:
                raise
            failures += 1  # the others may have what this one lacks
            warn(f"{run.name}: {error}")
    if several and done and done[-1].written:
        there = [found for run in plan.runs for found in _finished(home / run.name, done)]
        path = write_summary(home, plan.name, there, plan.retained)
        print_summary(there, plan.retained, console())
        console().print(f"wrote {path}", style="dim", markup=False, soft_wrap=True)
    if failures:
        raise typer.Exit(2)
    for results in done:
        if results.written:
            _judge_failures(results, max_failures)


def _named(runs: list[RunConfig], name: str) -> RunConfig:
    from ..errors import UnknownNameError, neighbours

    for run in runs:
        if run.name == name:
            return run
    raise UnknownNameError(f"no run {name!r}; {neighbours(name, [run.name for run in runs])}")


def _finished(folder: Path, done: list[Results]) -> list[Results]:
    """A run of now, or one of before that was not asked for now."""
    from ..eval.results import FILE, read_results

    now = [results for results in done if results.folder == folder]
    return now or ([read_results(folder)] if (folder / FILE).is_file() else [])


def _run(settings: dict[str, Any], out: Path, place: Shard, force: bool) -> Results:
    """One run with its report; of several ranks the one that sums up prints."""
    from ..eval import evaluate, write_report
    from .progress import hush, progress

    hush()
    with progress(f"evaluating {settings['name']}") if place.rank == 0 else contextlib.nullcontext() as tick:
        results = evaluate(**settings, out=out, force=force, shard=place, tick=tick)
    if results.written:
        written = write_report(results)
        print_results(results, console())
        for path in [results.folder / "results.json", *written]:
            console().print(f"wrote {path}", style="dim", markup=False, soft_wrap=True)
    return results


def _item(text: str) -> str | dict[str, Any]:
    """A method of a run as it is written on the command line."""
    from ..compare.settings import parse_method

    name, hyper = parse_method(text)
    return {"name": name, "label": text, **hyper} if hyper else name


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
    from ..eval import compare_runs

    if len(rows) not in (0, 2):
        raise InputError("--row is given twice: a row of A, then a row of B")
    found = compare_runs(a, b, rows=(rows[0], rows[1]) if rows else None, margin=margin)
    if as_json:
        typer.echo(json.dumps([d.to_dict() for d in found], indent=1))
    else:
        print_differences(found, console())


def print_check(name: str, root: str | None, media: str | None, screen: Console) -> None:
    """The first row of a benchmark, field by field, and what is asked of it. Raises `InputError` for a wrong field."""
    from ..eval import find_config, load_plan
    from ..eval.benchmarks import check_benchmark, is_benchmark
    from ..eval.medium import size_of
    from .progress import hush

    hush()
    home, suite = None, {"name": name}
    if not is_benchmark(name):
        run = load_plan(find_config(name)).runs[0]
        home, suite = run.home, {"name": run.suite} if isinstance(run.suite, str) else dict(run.suite)
    label = str(suite.pop("name"))
    if not is_benchmark(label):
        raise InputError(f"{name}: its suite is {label!r}, which is no public benchmark")
    given = {key: str(Path(value).absolute()) for key, value in (("root", root), ("media", media)) if value}
    found = check_benchmark(label, home, **{**suite, **given})
    part = " ".join(filter(None, (found.part.config, found.part.split)))
    screen.print(f"\n[bold]{found.benchmark.title}[/], {part}: the first row is as it has to be")
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("field", "has to be", "is"):
        table.add_column(head)
    for row in found.fields:
        table.add_row(*map(escape, row))
    screen.print(table)
    wide, high = size_of(found.medium)
    frames = len(getattr(found.medium, "frames", ()))
    shape = f"{frames} frames of {wide} x {high}" if frames else f"{wide} x {high} pixels"
    screen.print(f"\nasked, with {shape}:", style="bold")
    screen.print(found.asked.question, markup=False)
    screen.print(f"right: {' | '.join(found.asked.answers) or 'not known'}", style="bold", markup=False)


def print_results(results: Results, screen: Console) -> None:
    """The table of a run: one line a row."""
    from ..eval.report import beside, interval_text, keep_text, percent, published_note

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
    published = ["ours / published"] * bool(body.get("published"))
    scored = ["score", *published, "against unpruned"] if graded else published
    for head in ("keep", "tokens", *scored, "agrees", "failed"):
        table.add_column(head, justify="right", no_wrap=True)
    last = None
    for row in results.rows:
        if last is not None and last != row["label"]:
            table.add_section()
        cells = [row["label"] if row["label"] != last else "", keep_text(row["keep"])]
        last = row["label"]
        if row["state"] != "ok":
            floor = f"- (floor {percent(row['floor'])} %)" if row["floor"] else "-"
            table.add_row(*cells, floor, *[""] * (len(scored) + 2))
            continue
        tokens = row.get("tokens")
        cells.append("" if tokens is None else f"{tokens['equivalent']:.1f}")
        theirs = ["" if row.get("published") is None else " / ".join(beside(row, body))] if published else []
        if graded:
            cells += [interval_text(row.get("score")), *theirs, interval_text(row.get("difference"), signed=True)]
        else:
            cells += theirs
        cells.append(percent(row.get("agreement")) if row["label"] != "none" else "")
        table.add_row(*cells, str(row["failed"]) if row["failed"] else "")
    screen.print(table)
    if published:
        screen.print(published_note(body), markup=False)
    _print_headline(results, screen)


def print_summary(results: list[Results], retained: dict[str, Any] | None, screen: Console) -> None:
    """Several runs in one table."""
    from ..eval.summary import summary

    heads, lines = summary(results, retained)
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, justify="left" if head == "method" else "right", no_wrap=head != "method")
    last = None
    for line in lines:
        table.add_row(line[0] if line[0] != last else "", *line[1:])
        last = line[0]
    screen.print(table)


def _print_headline(results: Results, screen: Console) -> None:
    """The number that papers report, where it is no mean over samples."""
    from ..eval.benchmarks import get_scorer

    metric = results.body["suite"]["metric"]
    name, plain = get_scorer(metric).headline, results.row("none").get("totals", {}).get(metric, {})
    if name in plain:
        value = get_scorer(metric).scale * plain[name]["value"]
        screen.print(f"{name} of the unpruned answers: [bold]{value:.1f}[/]; of every row in report.md")


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
