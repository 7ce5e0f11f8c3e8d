"""A bench's findings as tables of words, for a terminal or for Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .result import BenchResult, Cell, KernelRow, Line, ModelRow
from .timer import Ratio

DASH = "-"


@dataclass(frozen=True)
class Table:
    """Heads, and rows of as many words; the first `words` columns read from the left, the others are figures."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    words: int = 1
    caption: str = ""
    notes: list[str] = field(default_factory=list)


def tables(result: BenchResult) -> list[Table]:
    """Everything that was measured, in the order of the result."""
    found = [
        _of_lines(name, what, [x for x in result.lines if x.size == name])
        for name, what in result.sizes.items()
    ]
    found += [_of_cells(name, [c for c in result.cells if c.size == name]) for name in result.sizes]
    names = dict.fromkeys(row.model for row in result.models)
    found += [of_model([row for row in result.models if row.model == name]) for name in names]
    return [t for t in (*found, of_kernels(result.kernels, result.ceilings)) if t.rows or t.notes]


def markdown(result: BenchResult) -> str:
    """The tables under what they were measured with."""
    machine = ", ".join(f"{k} {v}" for k, v in result.machine.items())
    versions = ", ".join(f"{k} {v}" for k, v in result.versions.items())
    parts = ["# tokenprune bench", f"{machine}. {versions}.", f"Clock: {result.protocol['clock']}."]
    for table in tables(result):
        rule = ["---" if i < table.words else "---:" for i in range(len(table.heads))]
        lines = [_row(table.heads), _row(rule), *map(_row, table.rows)] if table.rows else []
        parts += [f"## {table.title}", *(["\n".join(lines)] if lines else []), table.caption, *table.notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def of_model(rows: list[ModelRow]) -> Table:
    """One architecture, a row a method."""
    first = rows[0]
    depth = f"{first.layers} of {first.of_layers} decoder layers, {first.tower_layers} of the tower"
    title = f"{first.model}: {depth}, {first.dtype}, {first.visual} visual + {first.text} text tokens"
    heads = (
        "method", "keep", "visual", "first ms", "first", "ideal", "prompt", "ideal", "token ms", "token", "ideal",
        "tower", "scoring", "FLOPs", "KV MiB", "KV", "peak MiB", "peak",
    )  # fmt: skip
    caption = (
        "First: time to the first token; prompt: of it, what is not the tower; token: each one after it. Columns "
        "without a unit are shares of the unpatched model measured in turn with it (A B B A, medians); ideal: a free "
        "choice of as many tokens. Tower and scoring: shares of the row's own time to the first token. FLOPs: of the "
        "language model's prefill. Peak: bytes above the weights."
    )
    notes = [f"{row.method}: {row.note}" for row in rows if row.note]
    return Table(title, heads, [_model(row) for row in rows if not row.note], 1, caption, notes)


def of_kernels(rows: list[KernelRow], ceilings: dict[str, float]) -> Table:
    """Kernels beside the ceilings."""
    heads = (
        "kernel",
        "bound",
        "arguments",
        "backend",
        "dtype",
        "ms",
        "MB",
        "GFLOP",
        "FLOP/byte",
        "least ms",
        "share",
    )
    body = [
        (
            r.kernel, r.bound, r.shapes, r.backend, r.dtype, f"{1e3 * r.seconds:.3g}", f"{r.bytes / 1e6:.3g}",
            f"{r.flops / 1e9:.3g}", f"{r.flops / r.bytes:.3g}", f"{1e3 * r.least_seconds:.3g}", f"{r.share:.1%}",
        )
        for r in rows
    ]  # fmt: skip
    speeds = [f"{v / 1e9:.4g} G{'B' if k == 'bytes' else f'FLOP {k}'}/s" for k, v in ceilings.items()]
    caption = (
        f"Ceilings measured here: {', '.join(speeds)}. MB: arguments read and answers written once; GFLOP: matrix "
        "products; share: of the time that the nearer ceiling allows."
    )
    return Table("Kernels", heads, body, 5, caption if rows else "")


def _model(row: ModelRow) -> tuple[str, ...]:
    first, prompt, token = (row.ratios.get(k) for k in ("first", "prompt", "token"))
    keep = DASH if row.keep is None else f"{row.keep:g}"
    return (
        row.method, keep, f"{row.kept}", _ms(first), _of(first), _of(row.ideal.get("first")), _of(prompt),
        _of(row.ideal.get("prompt")), _ms(token), _of(token), _of(row.ideal.get("token")), f"{row.tower:.0%}",
        f"{row.scoring:.1%}", _share(row.flops, row.flops_unpruned), _mib(row.kv_bytes),
        _share(row.kv_bytes, row.kv_bytes_unpruned), _mib(row.peak_bytes),
        _share(row.peak_bytes, row.peak_bytes_unpruned),
    )  # fmt: skip


def _of_lines(name: str, what: str, lines: Iterable[Line]) -> Table:
    heads = ("what", "against", "median", "quartiles", "minima", "ms", "goal", "")
    rows = []
    for line in lines:
        goal = DASH if line.goal is None else f"{line.goal:g}"
        r = line.ratio
        if r is None:
            more = (line.ops or 0) - (line.base_ops or 0)
            figures = (f"{more:+d}", f"{line.base_ops} to {line.ops}", DASH, DASH)
        else:
            figures = (f"{r.median:.3f}", f"{r.low:.3f} to {r.high:.3f}", f"{r.minimum:.3f}", _ms(r))
        rows.append((line.what, line.base, *figures, goal, line.verdict.value))
    return Table(f"{name}: {what}", heads, rows, 2, notes=[line.note for line in lines if line.note])


def _of_cells(name: str, cells: list[Cell]) -> Table:
    measured = [cell for cell in cells if cell.dense_share is not None]
    focal = list(measured[0].step) if measured else []
    ratios = [f"{what}, {m} focal" for what in ("attention", "step", "ideal") for m in focal]
    heads = ("visual", "batch", "dense ms", "focal ms", "sparse ms", "linears ms", "share", *ratios, "")
    rows = [
        (
            str(c.visual), str(c.batch),
            *(f"{ms or 0:.3g}" for ms in (c.dense_ms, c.focal_ms, c.sparse_ms, c.linears_ms)), f"{c.dense_share:.0%}",
            *(f"{of[m]:.2f}" for of in (c.attention, c.step, c.ideal) for m in focal), c.verdict,
        )
        for c in measured
    ]  # fmt: skip
    return Table(name, heads, rows, 0, notes=[c.note for c in cells if c.note])


def _row(words: Iterable[str]) -> str:
    return f"| {' | '.join(words)} |"


def _of(ratio: Ratio | None) -> str:
    return DASH if ratio is None else f"{ratio.median:.2f}"


def _ms(ratio: Ratio | None) -> str:
    return DASH if ratio is None else f"{1000 * ratio.seconds:.4g}"


def _mib(number: float) -> str:
    return f"{number / 2**20:.4g}"


def _share(number: float, whole: float) -> str:
    return DASH if not whole else f"{number / whole:.2f}"
