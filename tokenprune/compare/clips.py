"""Clips of a comparison, as strips of what was kept of every step."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from ..media import Clip
from ..tokens import ImageReport
from ..viz import Kept, Reel, clip_sheet, kept_by_step, steps_of
from .captions import caption_of, facts, good
from .examples import Film
from .result import Answer, Comparison
from .settings import Setting

TITLE = "The same clip, read from fewer visual tokens"
LEGEND = "bars and numbers: tokens kept of a step   ·   thin line: an equal share   ·   faded: dropped"


def videos(answer: Answer | None) -> list[ImageReport]:
    """The reports a clip has, in order: one, or one for each of its frames on models that see it as pictures."""
    return list(answer.report.images) if answer is not None and answer.report is not None else []


def clip_page(
    comparison: Comparison, settings: Sequence[Setting], examples: Sequence[int]
) -> Image.Image:
    """A page with a band for every example: its frames, and a row for every setting that did not fail."""
    reels = [_reel(comparison, settings, index) for index in examples]
    shown = [reel for reel in reels if reel is not None]
    legend = LEGEND
    if any(len(frames) > 1 for reel in shown for frames in reel.steps):
        legend += "   ·   frames above each other are one step: the model sees them as one"
    return clip_sheet(shown, title=TITLE, caption=caption_of(comparison, legend))


def views_of(clip: Clip, reports: Sequence[ImageReport]) -> tuple[list[list[Image.Image]], list[str]]:
    """The frames of every temporal step of a clip, and when each step begins."""
    count = sum(len(kept_by_step(report)) for report in reports)
    steps = steps_of(clip.pictures(), count)
    starts = steps_of(range(len(clip.timestamps)), count)
    return steps, [f"{clip.timestamps[own[0]] - clip.timestamps[0]:.1f} s" for own in starts]


def _reel(comparison: Comparison, settings: Sequence[Setting], index: int) -> Reel | None:
    example = comparison.examples[index]
    rows = []
    for setting in settings:
        answer = comparison.answer(index, setting.method, setting.keep)
        reports = videos(answer)
        if answer is None or not reports:
            continue
        look = answer.report.fixation if answer.report is not None else None
        note = "" if look is None else f"none dropped, {look.read_share:.0%} read a step"
        rows.append(Kept(setting.method, f"keep {setting.label}", reports, answer.text, good(answer), note))
    if not rows or not isinstance(example.picture, Film):
        return None
    steps, times = views_of(example.picture.clip, rows[0].reports)
    asked = f"{example.picture.name}: {example.question}"
    return Reel(steps, times, rows, asked, facts(comparison, index), comparison.boxes[index])
