"""What one answer looked at, as pictures: the views a card can show."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ..chat import Medium
from ..compare.captions import good, reads
from ..compare.clips import videos, views_of
from ..compare.gazes import gaze_views
from ..compare.result import Answer
from ..compare.settings import keep_label
from ..errors import InputError
from ..media import Clip
from ..tokens import ImageReport
from ..viz import (
    Cell,
    GazePage,
    Gazing,
    Kept,
    Reel,
    SheetRow,
    clip_sheet,
    contact_sheet,
    gaze_strip,
    looks_of,
    overlay,
    save_gif,
)
from ..viz.overlay import Box, fit

KEPT, CLUSTERS, SCORES, GAZE, STEPS = "kept", "clusters", "scores", "gaze", "steps"
SIDE = 640


def views(medium: Medium, answer: Answer) -> list[str]:
    """The views an answer has, the most telling one first."""
    report = answer.report
    if report is None or not report.images:
        return []
    out = []
    if report.fixation is not None and looks_of(report, answer.written):
        out += [GAZE, STEPS]
    if isinstance(medium, Clip):  # what was kept of a clip is a strip of its own
        return out
    first = report.images[0]
    if not out or first.after < first.before:
        out = [KEPT, *out]
    if merges(first):
        out.insert(1, CLUSTERS)
    if first.scores is not None and bool(first.scores.isfinite().any()):
        out.append(SCORES)
    return out


def merges(report: ImageReport) -> bool:
    """Whether tokens went into others instead of being dropped."""
    if report.owner is None:
        return False
    kept = set(report.kept)
    return any(own >= 0 for at, own in enumerate(report.owner.tolist()) if at not in kept)


def pair(picture: Image.Image, answer: Answer, view: str, box: Box | None) -> tuple[Image.Image, Image.Image]:
    """The picture whole, and as one of the views kept, clusters and scores shows it; of the same size."""
    assert answer.report is not None
    report = answer.report.images[0]
    if view == KEPT:
        report = replace(report, owner=None)
    return fit(picture, SIDE), overlay(picture, report, side=SIDE, heat=view == SCORES, box=box)


def gaze(medium: Medium, answer: Answer, view: str, box: Box | None, question: str) -> str:
    """HTML of the moving fixation (an animation), or of its steps side by side."""
    report, label = answer.report, f"keep {keep_label(answer.keep or 1.0)}"
    assert report is not None
    looks, seen = looks_of(report, answer.written), gaze_views(medium, videos(answer), box)
    if view == STEPS:
        page = gaze_strip([Gazing(seen, looks, question, label, [(answer.method, answer.text, None)])])
        data, kind = _bytes(page), "webp"
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gaze.gif"
            save_gif(GazePage(seen, looks, method=answer.method, keep=label, question=question), path)
            data, kind = path.read_bytes(), "gif"
    text = f"where {answer.method} looked in {len(looks)} steps of its answer"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<div class="tp-scroll"><img class="tp-{view}" alt="{text}" src="{source}"></div>'


def strip(clip: Clip, answers: Sequence[Answer], box: Box | None) -> Image.Image | None:
    """The clip's frames and, in a row for every answer, what was kept of each; None where nothing was pruned."""
    rows = [
        Kept(a.method, f"keep {keep_label(a.keep or 1.0)}", videos(a), a.text, good(a), reads(a))
        for a in answers
        if a.error is None and videos(a)
    ]
    if not rows:
        return None
    steps, times = views_of(clip, rows[0].reports)
    return clip_sheet([Reel([own[:1] for own in steps], times, rows, "", [], box)])


def sheet(medium: Medium, question: str, answers: Sequence[Answer], box: Box | None) -> Image.Image | None:
    """One method's answers at several budgets on a page; None where none of them came."""
    told = [a for a in answers if a.error is None and a.report is not None]
    if isinstance(medium, Clip):
        return strip(medium, told, box)
    if not told:
        return None
    columns = [(a.method, f"keep {keep_label(a.keep or 1.0)}") for a in told]
    cells = [Cell(a.report.images[0], a.text, good(a), note=reads(a)) for a in told if a.report]
    return contact_sheet([SheetRow(medium, question, [*cells], [], box)], columns)


def _bytes(image: Image.Image) -> bytes:
    out = io.BytesIO()
    if max(image.size) > 4000:
        raise InputError("too many steps to show side by side")
    image.save(out, format="WEBP", quality=90)
    return out.getvalue()
