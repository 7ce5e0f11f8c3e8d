"""A comparison as tables for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..bench.timer import Ratio
from ..compare.figures import telling
from ..compare.result import BLIND, NONE, Answer, Comparison, Summary
from ..viz import kept_by_step

SHOWN = 6
"""Questions whose answers are printed one by one; all of them are in the JSON."""


def print_comparison(found: Comparison, screen: Console) -> None:
    """One table of settings; then, for several questions, the answers to a few of them."""
    single = len(found.examples) == 1
    model = " ".join(filter(None, [found.model["name"], found.model["version"]]))
    screen.print()
    screen.print(f"[bold]{escape(model)}[/], {found.model['dtype']} on {found.model['device']}")
    if single:
        example = found.examples[0]
        expected = f"  [dim](right answer: {escape(example.expected)})[/]" if example.expected else ""
        screen.print(f"{escape(example.picture.name)}: {escape(example.question)}{expected}")
    else:
        media = len({e.picture.name for e in found.examples})
        screen.print(
            f"{len(found.examples)} questions about {media} {'clips' if found.video else 'pictures'}"
        )
    screen.print()
    screen.print(_summary_table(found, single))
    for line in _notes(found):
        screen.print(line, style="dim", markup=False)
    if single:
        _print_steps(found, 0, screen)
    else:
        for index in telling(found, SHOWN):
            screen.print()
            _print_question(found, index, screen)


def _summary_table(found: Comparison, single: bool) -> Table:
    graded = any(e.expected is not None for e in found.examples)
    timed = bool(found.speeds)
    table = Table(header_style="bold", pad_edge=False, box=None, padding=(0, 2, 0, 0))
    table.add_column("method")
    table.add_column("keep", justify="right")
    table.add_column("visual tokens", justify="right")
    if single:
        table.add_column("answer", no_wrap=True)
        table.add_column("agrees")
    else:
        if graded:
            table.add_column("correct", justify="right")
        table.add_column("agrees", justify="right")
    if timed:
        table.add_column("prefill", justify="right")
        table.add_column("decode step", justify="right")
    table.add_column("KV MiB", justify="right")
    last = None
    for row in found.summaries():
        if last not in (None, row.method) and last != NONE:
            table.add_section()
        table.add_row(*_cells(found, row, single, graded, timed, repeat=row.method == last))
        last = row.method
    return table


def _cells(
    found: Comparison, row: Summary, single: bool, graded: bool, timed: bool, repeat: bool
) -> list[str]:
    cells = ["" if repeat else f"[bold]{escape(row.method)}[/]", row.label, _tokens(row)]
    if row.failures and not row.answers:
        return [*cells, "[red]failed[/]"]
    if single:
        answer = found.answer(0, row.method, row.keep)
        cells += [_text(answer, 48), _agrees(answer)]
    else:
        if graded:
            cells.append(_share(row.accuracy))
        cells.append("" if row.method == NONE else _share(row.agreement))
    if timed:
        cells += [_ratio(row.prefill, row.method), _ratio(row.decode, row.method)]
    return [*cells, "" if row.kv_mib is None else f"{row.kv_mib:.2f}"]


def _tokens(row: Summary) -> str:
    if row.before is None or row.after is None:
        return ""
    text = f"{row.before:.0f}" if row.method == NONE else f"{row.before:.0f} -> {row.after:.0f}"
    if row.read is not None:
        text += f" (a step reads {row.read:.0%})"
    if row.equivalent is not None and abs(row.equivalent - row.after) > 0.5:
        text += f" (mean {row.equivalent:.0f})"
    return text


def _ratio(ratio: Ratio | None, method: str) -> str:
    if ratio is None:
        return ""
    return f"{ratio.seconds * 1000:.1f} ms" if method == NONE else f"{ratio.median:.2f} x"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _short(text: str, most: int) -> str:
    text = " ".join(text.split()) or "(nothing)"
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(answer: Answer | None, most: int) -> str:
    """An answer on one line, green or red as it is right or, where that is not known, agrees."""
    if answer is None:
        return ""
    if answer.error is not None:
        return "[red]failed[/]"
    good = answer.correct if answer.correct is not None else answer.agrees
    colour = "" if good is None else "[green]" if good else "[red]"
    return f"{colour}{escape(_short(answer.text, most))}"


def _agrees(answer: Answer | None) -> str:
    if answer is None or answer.agrees is None:
        return ""
    return "yes" if answer.agrees else "no"


def _notes(found: Comparison) -> list[str]:
    notes = [f"blind: {found.protocol['blind']}" if "blind" in found.protocol else ""]
    if found.speeds:
        pairs = min(s.prefill.pairs for s in found.speeds.values())
        notes.append(
            "prefill (to the first token), decode step: share of the unpruned time, "
            f"median of {pairs} pairs side by side ({found.machine['threads']} thread, {found.protocol['clock']})"
        )
    failed = {f"{r.method} {r.label}: {m}".strip() for r in found.summaries() for m in r.failures}
    return [n for n in notes if n] + sorted(failed)


def _print_question(found: Comparison, index: int, screen: Console) -> None:
    example = found.examples[index]
    facts = [f"right answer {example.expected}"] if example.expected is not None else []
    for label, method in (("unpruned", NONE), ("blind", BLIND)):
        answer = found.answer(index, method)
        if answer is not None and answer.error is None:
            facts.append(f"{label} {_short(answer.text, 40)}")
    screen.print(
        f"[bold]{escape(example.question)}[/]  [dim]{escape(example.picture.name)}: {escape(', '.join(facts))}[/]"
    )
    keeps = list(dict.fromkeys(s.label for s in found.settings))
    table = Table(header_style="dim", pad_edge=False, box=None, padding=(0, 2, 0, 0))
    table.add_column("", min_width=10)
    for label in keeps:
        table.add_column(label, no_wrap=True)
    for method in dict.fromkeys(s.method for s in found.settings):
        by_label = {s.label: s.keep for s in found.settings if s.method == method}
        cells = [
            _text(found.answer(index, method, by_label[label]), 24) if label in by_label else ""
            for label in keeps
        ]
        table.add_row(escape(method), *cells)
    screen.print(table)
    _print_steps(found, index, screen)


def _print_steps(found: Comparison, index: int, screen: Console) -> None:
    """Tokens kept of every temporal step of a clip, which is one frame or, on some models, several."""
    rows = []
    for setting in found.settings:
        answer = found.answer(index, setting.method, setting.keep)
        images = answer.report.images if answer is not None and answer.report is not None else []
        counts = [count for image in images if image.kind == "video" for count in kept_by_step(image)]
        if counts:
            rows.append((setting, counts))
    if not rows:
        return
    wide = max(len(str(count)) for _, counts in rows for count in counts)
    table = Table(header_style="dim", pad_edge=False, box=None, padding=(0, 2, 0, 0))
    table.add_column("", min_width=10)
    table.add_column("", justify="right")
    table.add_column(f"kept of each of {max(len(counts) for _, counts in rows)} steps in time")
    last = None
    for setting, counts in rows:
        name = "" if setting.method == last else escape(setting.method)
        table.add_row(name, setting.label, " ".join(f"{count:{wide}d}" for count in counts))
        last = setting.method
    screen.print()
    screen.print(table)
