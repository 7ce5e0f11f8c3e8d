"""The pictures of a comparison: one a method with every budget, and one sheet with all methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..errors import InputError
from ..tokens import ImageReport
from ..viz import Cell, SheetRow, contact_sheet
from .result import BLIND, NONE, Answer, Comparison
from .settings import Setting

SHEET_ROWS, METHOD_ROWS = 4, 6
SHEET_COLUMNS = 8
"""More cells than this side by side and nobody sees anything; the pictures of single methods have every budget."""

LEGEND = "faded: dropped   ·   tinted: merged, one tint a cluster   ·   untouched: read as it is"
TITLE = "The same questions, read from fewer visual tokens"


def write_figures(
    comparison: Comparison, folder: Path, *, tick: Callable[[int, int, str], None] | None = None
) -> list[Path]:
    """Write `sheet.png` and `<method>.png` for every method into `folder`; returns their paths, the sheet first.

    Pictures are reloaded for drawing; one example a picture is shown, with kinds of question that differ.
    """
    methods = list(dict.fromkeys(s.method for s in comparison.settings))
    jobs: list[tuple[str, list[Setting], bool, int]] = [
        ("sheet", _for_sheet(comparison.settings, len(methods)), False, SHEET_ROWS)
    ]
    for method in methods:
        jobs.append((method, [s for s in comparison.settings if s.method == method], True, METHOD_ROWS))
    written: list[Path] = []
    for place, (name, settings, heat, most) in enumerate(jobs):
        if tick is not None:
            tick(place, len(jobs), f"drawing {name}.png")
        page = _page(comparison, settings, telling(comparison, most), heat)
        path = folder / f"{name}.png"
        try:
            page.save(path, compress_level=4)  # the last 7 % of its size would take six times as long
        except OSError as error:
            raise InputError(f"{path.name}: cannot be written ({error.strerror or error})") from error
        written.append(path)
    return written


def _for_sheet(settings: Sequence[Setting], methods: int) -> list[Setting]:
    """All methods; as many budgets as fit, spread evenly and always with the smallest one."""
    keeps = list(dict.fromkeys(s.keep for s in settings))
    fit = max(1, SHEET_COLUMNS // methods)
    if len(keeps) > fit:
        step = len(keeps) / fit
        keeps = [keeps[min(len(keeps) - 1, round((i + 1) * step) - 1)] for i in range(fit)]
    return [s for s in settings if s.keep in keeps]


def telling(comparison: Comparison, most: int) -> list[int]:
    """Examples worth showing: one a picture, kinds of question that were not shown yet first."""
    chosen: list[int] = []
    kinds: set[str | None] = set()
    by_picture: dict[str, list[int]] = {}
    for index, example in enumerate(comparison.examples):
        by_picture.setdefault(example.picture.name, []).append(index)
    while by_picture and len(chosen) < most:
        for name in list(by_picture)[: most - len(chosen)]:
            left = by_picture[name]
            index = next((i for i in left if comparison.examples[i].kind not in kinds), left[0])
            left.remove(index)
            chosen.append(index)
            kinds.add(comparison.examples[index].kind)
            if not left:
                del by_picture[name]
    return sorted(chosen)


def _page(
    comparison: Comparison, settings: Sequence[Setting], examples: Sequence[int], heat: bool
) -> Image.Image:
    columns = [(s.method, f"keep {s.label}") for s in settings]
    scored = _scored(comparison, settings, examples) if heat else None
    if scored is not None:
        columns.append((scored.method, "scores, light is high"))
    rows = []
    for index in examples:
        example = comparison.examples[index]
        cells: list[Cell | None] = [_cell(comparison.answer(index, s.method, s.keep)) for s in settings]
        if scored is not None:
            report = _first(comparison.answer(index, scored.method, scored.keep))
            cells.append(
                Cell(report, heat=True) if report is not None and report.scores is not None else None
            )
        rows.append(
            SheetRow(
                example.picture.load(),
                example.question,
                cells,
                _facts(comparison, index),
                comparison.boxes[index],
                list(example.boxes),
            )
        )
    model = " ".join(filter(None, [comparison.model["name"], comparison.model["version"]]))
    caption = f"{model}   ·   tokenprune {comparison.versions['tokenprune']}   ·   {LEGEND}"
    if any(comparison.examples[i].boxes for i in examples):
        caption += "   ·   framed: what is asked about"
    shown = [_first(comparison.answer(i, s.method, s.keep)) for i in examples for s in settings]
    if any(report is not None and int(report.coords[:, 0].max()) > 0 for report in shown):
        caption += "   ·   of several crops the overview is drawn"
    return contact_sheet(rows, columns, title=TITLE, caption=caption)


def _cell(answer: Answer | None) -> Cell | None:
    report = _first(answer)
    if answer is None or report is None:
        return None
    return Cell(report, answer.text, _good(answer))


def _good(answer: Answer) -> bool | None:
    return answer.agrees if answer.correct is None else answer.correct


def _first(answer: Answer | None) -> ImageReport | None:
    """The report of the picture that was asked about."""
    return answer.report.images[0] if answer and answer.report and answer.report.images else None


def _scored(comparison: Comparison, settings: Sequence[Setting], examples: Sequence[int]) -> Setting | None:
    """The first setting whose reports carry scores."""
    for setting in settings:
        for index in examples:
            report = _first(comparison.answer(index, setting.method, setting.keep))
            if report is not None and report.scores is not None:
                return setting
    return None


def _facts(comparison: Comparison, index: int) -> list[tuple[str, str, bool | None]]:
    facts: list[tuple[str, str, bool | None]] = []
    expected = comparison.examples[index].expected
    if expected is not None:
        facts.append(("right answer", expected, None))
    for label, method in (("unpruned", NONE), ("blind", BLIND)):
        answer = comparison.answer(index, method)
        if answer is not None and answer.error is None:
            facts.append((label, answer.text, answer.correct))
    return facts
