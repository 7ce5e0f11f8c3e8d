"""`tokenprune bench`: what a patch costs, and whether that is within its goals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from ..errors import InputError
from .app import app, console

if TYPE_CHECKING:
    from ..bench.result import BenchResult, Cell, Line
    from ..bench.tables import Table as Words

HEADS = (
    ("what", False), ("against", False), ("median", True), ("quartiles", True), ("minima", True), ("ms", True),
    ("goal", True), ("", False),
)  # fmt: skip
COLOURS = {"MET": "green", "MISSED": "bold red", "INFO": "dim"}


@app.command()
def bench(
    only: list[str] = typer.Option(
        [],
        "--only",
        help="The name of a size, such as decode28 or fixation-grid; may be repeated.",
    ),
    quick: bool = typer.Option(False, "--quick", help="Fewer rounds: a first look, not a result."),
    pairs: int = typer.Option(None, "--pairs", min=1, help="Rounds of every size; 20 or more make a result."),
    length: list[int] = typer.Option(
        [], "--length", min=1, help="Visual tokens of fixation-grid; may be repeated."
    ),
    batch: list[int] = typer.Option(
        [], "--batch", min=1, help="Batch sizes of fixation-grid; may be repeated."
    ),
    model: list[str] = typer.Option(
        [], "--model", help="A real architecture, such as qwen2.5-vl-7b, or `all`; may be repeated."
    ),
    kernel: bool = typer.Option(False, "--kernels", help="Every kernel beside this machine's ceilings."),
    method: list[str] = typer.Option([], "--method", help="With --model: a method; may be repeated."),
    keep: float = typer.Option(0.25, "--keep", help="With --model: the share of visual tokens that stays."),
    layers: int = typer.Option(None, "--layers", min=1, help="With --model: decoder layers; all by default."),
    tower_layers: int = typer.Option(
        None, "--tower-layers", min=1, help="With --model: layers of the tower."
    ),
    side: int = typer.Option(None, "--side", min=1, help="With --model: pixels of the square picture."),
    dtype: str = typer.Option(
        None, "--dtype", help="bfloat16, float16 or float32, of --model and --kernels."
    ),
    device: str = typer.Option("cpu", "--device", help="cpu or cuda, of --model and --kernels."),
    out: Path = typer.Option(Path("out/bench/bench.json"), "--out", help="Where to write the figures."),
) -> None:
    """Measure what a patch costs and saves: one thread, user CPU time, ratios of interleaved runs.

    Needs no weights and no network. Without --model and --kernels, the price of the hooks at several sizes: `7b2`
    takes about 2 GB of memory and some minutes; the others less. `fixation-grid` runs only when named: 4 GB, and half
    an hour for all its cells. So does `retrieval`, an index of 50,000 pictures: 2.5 GB of disk, and seconds of wall
    clock beside user CPU time.

    `--model llava-1.5-7b --layers 2` builds that architecture at its real width, vocabulary and picture with random
    weights and measures time to the first token, each token after it, KV cache, peak memory and what choosing takes,
    beside the ideal; a layer of a 7B model takes 0.4 GB, its vocabulary up to 2.2. Tables in Markdown and, with
    matplotlib, plots are written beside the JSON.
    """
    if only == ["retrieval"]:
        from ..bench import retrieval

        little = ["--pictures", "2000", "--queries", "20", "--colds", "1"]
        return retrieval.main([*(little if quick else []), "--out", str(out)])
    from ..bench.run import bench as run
    from .progress import hush, progress

    hush()
    with progress("measuring") as tick:
        if model or kernel:
            if only:
                raise InputError("--only names sizes, --model architectures: one of them, please")
            asked = {"methods": tuple(method)} if method else {}
            shape = {"keep": keep, "layers": layers, "tower_layers": tower_layers, "side": side, **asked}
            common = {
                "quick": quick,
                "pairs": pairs,
                "device": _device(device),
                "tick": tick,
                **_dtype(dtype),
            }
            result = real(model, kernel, shape, common)
        else:
            result = run(only, quick=quick, pairs=pairs, lengths=length, batches=batch, tick=tick)
    written = write_bench(result, out)
    print_bench(result, console())
    console().print(f"wrote {', '.join(map(str, written))}", style="dim", markup=False, soft_wrap=True)


def real(names: list[str], kernel: bool, shape: dict[str, Any], common: dict[str, Any]) -> BenchResult:
    """Architectures, kernels, or both in one result."""
    from ..bench.run import bench_kernels, bench_models

    if not names:
        return bench_kernels(**common)
    result = bench_models([] if "all" in names else names, **shape, **common)
    if kernel:
        found = bench_kernels(**common)
        result.kernels, result.ceilings = found.kernels, found.ceilings
        result.protocol |= found.protocol
    return result


def write_bench(result: BenchResult, out: Path) -> list[Path]:
    """The figures as JSON, and tables and plots beside them."""
    from ..bench.plots import write_plots
    from ..bench.tables import markdown

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        page = out.with_suffix(".md")
        page.write_text(markdown(result), encoding="utf-8")
        return [out, page, *write_plots(result, out.parent, f"{out.stem}-")]
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error


def _device(name: str) -> str:
    import torch

    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise InputError(
            f"--device {name}: {'cpu or cuda' if name != 'cuda' else 'torch sees no CUDA device'}"
        )
    return name


def _dtype(name: str | None) -> dict[str, Any]:
    import torch

    known = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    if name is None:
        return {}
    if name not in known:
        raise InputError(f"--dtype {name}: one of {', '.join(known)}")
    return {"dtype": known[name]}


def print_bench(result: BenchResult, screen: Console) -> None:
    """A table for each size; goals met in green, missed in red. Then those of models and of kernels."""
    from ..bench.tables import of_kernels, of_model

    for name, what in result.sizes.items():
        screen.print(f"\n[bold]{name}[/]  [dim]{what}[/]")
        cells = [cell for cell in result.cells if cell.size == name]
        if cells:
            print_cells(cells, screen)
            continue
        table = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for head, right in HEADS:
            table.add_column(head, justify="right" if right else "left", no_wrap=True)
        for line in result.lines:
            if line.size == name:
                colour = COLOURS.get(line.verdict.name, "yellow")
                table.add_row(line.what, line.base, *_figures(line), f"[{colour}]{line.verdict.value}[/]")
        screen.print(table)
    for name in dict.fromkeys(row.model for row in result.models):
        print_table(of_model([row for row in result.models if row.model == name]), screen)
    if result.kernels:
        print_table(of_kernels(result.kernels, result.ceilings), screen)
    screen.print()
    screen.print(
        f"{result.machine['cpu']}, {result.machine['threads']} thread, {result.protocol['clock']}; "
        f"{result.protocol['memory']}; 'again' is the same model twice: the noise",
        style="dim",
        markup=False,
    )
    for row in (*result.lines, *result.cells):
        if row.note:
            screen.print(f"{row.size}: {row.note}", style="yellow", markup=False)


def print_table(found: Words, screen: Console) -> None:
    """A table of words, with its caption."""
    screen.print(f"\n[bold]{found.title}[/]")
    table = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, head in enumerate(found.heads):
        table.add_column(head, justify="left" if place < found.words else "right")
    for row in found.rows:
        table.add_row(*row)
    screen.print(table)
    for line in (found.caption, *found.notes):
        screen.print(line, style="dim", markup=False)


def print_cells(cells: list[Cell], screen: Console) -> None:
    """One row a length and batch: a layer's milliseconds, then times in percent of the dense step's."""
    table = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    measured = [cell for cell in cells if cell.dense_share is not None]
    focal = list(measured[0].step) if measured else []
    ratios = [f"{what} {'/'.join(focal)}" for what in ("attn", "step", "ideal")]
    for head in ("visual", "batch", "dense", "focal", "sparse", "linears", "share", *ratios):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    for cell in measured:
        times = [f"{ms or 0:.3g}" for ms in (cell.dense_ms, cell.focal_ms, cell.sparse_ms, cell.linears_ms)]
        shares = [
            " ".join(f"{100 * r[m]:.0f}" for m in focal) for r in (cell.attention, cell.step, cell.ideal)
        ]
        colour = "green" if cell.verdict == "pays" else "dim"
        verdict = f"[{colour}]{cell.verdict}[/]"
        table.add_row(str(cell.visual), str(cell.batch), *times, f"{cell.dense_share:.0%}", *shares, verdict)
    screen.print(table)
    paths = ", ".join(sorted({cell.dense_path for cell in measured}))
    screen.print(
        f"ms of one layer (dense: {paths}); share: attention in the dense step; attn, step, ideal: all attention, "
        "the whole step, the keys read, in percent of the dense one with so many focal layers",
        style="dim",
        markup=False,
    )


def _figures(line: Line) -> list[str]:
    if line.ratio is None:
        more = (line.ops or 0) - (line.base_ops or 0)
        goal = "" if line.goal is None else f"+{line.goal:.0f}"
        return [f"{more:+d}", f"{line.base_ops} -> {line.ops}", "", "", goal]
    r = line.ratio
    goal = "" if line.goal is None else f"{line.goal:.2f}"
    return [
        f"{r.median:.3f}",
        f"{r.low:.3f}-{r.high:.3f}",
        f"{r.minimum:.3f}",
        f"{r.seconds * 1000:.1f}",
        goal,
    ]
