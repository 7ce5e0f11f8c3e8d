"""The pictures of a comparison: one a method with every budget, and one sheet with all methods.

Methods of the decode stage get a film strip and an animation instead, clips a strip of their frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..errors import InputError
from ..methods import method_class
from ..tokens import ImageReport
from ..viz import Cell, SheetRow, contact_sheet
from .captions import caption_of, facts, good, reads
from .clips import clip_page
from .gazes import GIFS, draw_gazes
from .result import Answer, Comparison
from .settings import Setting

SHEET_ROWS, METHOD_ROWS = 4, 6
SHEET_COLUMNS = 8
"""More cells than this side by side and nobody sees anything; the pictures of single methods have every budget."""

LEGEND = "faded: dropped   ·   tinted: merged, one tint a cluster   ·   untouched: read as it is"
TITLE = "The same questions, read from fewer visual tokens"

Tick = Callable[[int, int, str], None]


def write_figures(comparison: Comparison, folder: Path, *, tick: Tick | None = None) -> list[Path]:
    """Write `sheet.png` and `<method>.png` for every method into `folder`; returns their paths, the sheet first.

    A method of the decode stage drops nothing: its `<method>.png` is a film strip of where it looked, and for every
    example shown there is an animation, `<method>.gif`, or `<method>-<number of the example>.gif` where there are
    several. It has none of them when no answer took a decode step. Of clips every page shows strips.

    Pictures are reloaded for drawing; one example a picture is shown, with kinds of question that differ.
    """
    methods = list(dict.fromkeys(s.method for s in comparison.settings))
    page = clip_page if comparison.video else _page
    written: list[Path] = []

    def save(drawn: Image.Image, name: str) -> None:
        written.append(folder / name)
        drawn.save(written[-1], compress_level=4)  # the last 7 % of its size would take six times as long

    try:
        for place, name in enumerate(["sheet", *methods]):
            if tick is not None:
                tick(place, 1 + len(methods), f"drawing {name}")
            own = [s for s in comparison.settings if s.method == name]
            if not own:
                rows = telling(comparison, SHEET_ROWS)
                drawn = page(comparison, _for_sheet(comparison.settings, len(methods)), rows, False)
                save(drawn, "sheet.png")
                continue
            looks_only = method_class(name).stage == "decode"
            if not looks_only:
                save(page(comparison, own, telling(comparison, METHOD_ROWS), True), f"{name}.png")
            stem = name if looks_only else f"{name}-gaze"  # a method may drop first and look later
            written += draw_gazes(comparison, own, telling(comparison, GIFS), folder, stem)
    except OSError as error:
        raise InputError(
            f"{folder.name}: its pictures cannot be written ({error.strerror or error})"
        ) from error
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
    comparison: Comparison, settings: Sequence[Setting], examples: Sequence[int], whole: bool
) -> Image.Image:
    columns = [(s.method, f"keep {s.label}") for s in settings]
    scored = _scored(comparison, settings, examples) if whole else None
    if scored is not None:
        columns.append((scored.method, "scores, light is high"))
    rows = []
    for index in examples:
        example = comparison.examples[index]
        picture = example.picture.load()
        assert isinstance(picture, Image.Image)  # clips have pages of their own
        cells: list[Cell | None] = [_cell(comparison.answer(index, s.method, s.keep)) for s in settings]
        if scored is not None:
            report = _first(comparison.answer(index, scored.method, scored.keep))
            cells.append(
                Cell(report, heat=True) if report is not None and report.scores is not None else None
            )
        rows.append(
            SheetRow(
                picture,
                example.question,
                cells,
                facts(comparison, index),
                comparison.boxes[index],
                list(example.boxes),
            )
        )
    caption = caption_of(comparison, LEGEND)
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
    return Cell(report, answer.text, good(answer), note=reads(answer))


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
