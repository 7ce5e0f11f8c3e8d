"""Clips of a comparison, as strips of what was kept of every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from ..media import Clip
from ..tokens import ImageReport
from ..viz import Kept, Reel, clip_sheet, kept_by_step, steps_of
from .captions import caption_of, facts, good, reads
from .examples import Film
from .result import Answer, Comparison
from .settings import Setting

TITLE = "The same clip, read from fewer visual tokens"
LEGEND = "bars and numbers: tokens kept of a step   ·   thin line: an equal share   ·   faded: dropped"


def videos(answer: Answer | None) -> list[ImageReport]:
    """The reports a clip has, in order: one, or one for each of its frames on models that see it as pictures."""
    return list(answer.report.images) if answer is not None and answer.report is not None else []


def clip_page(
    comparison: Comparison, settings: Sequence[Setting], examples: Sequence[int], whole: bool
) -> Image.Image:
    """A page with a band for every example: its frames, and a row for every setting that did not fail.

    whole: all frames of a step, above each other; else its first one, which saves half of a page on most models.
    """
    reels = [_reel(comparison, settings, index) for index in examples]
    legend = LEGEND
    most = max(len(frames) for reel in reels for frames in reel.steps)
    if most > 1:
        legend += f"   ·   {most} frames are one step"
        legend += ", and above each other" if whole else "; its first one is shown"
    if not whole:
        reels = [replace(reel, steps=[own[:1] for own in reel.steps]) for reel in reels]
    return clip_sheet(reels, title=TITLE, caption=caption_of(comparison, legend))


def views_of(clip: Clip, reports: Sequence[ImageReport]) -> tuple[list[list[Image.Image]], list[str]]:
    """The frames of every temporal step of a clip, and when each step begins; without reports, of every frame."""
    count = sum(len(kept_by_step(report)) for report in reports) or len(clip.frames)
    steps = steps_of(clip.pictures(), count)
    starts = steps_of(range(len(clip.timestamps)), count)
    return steps, [f"{clip.timestamps[own[0]] - clip.timestamps[0]:.1f} s" for own in starts]


def _reel(comparison: Comparison, settings: Sequence[Setting], index: int) -> Reel:
    example = comparison.examples[index]
    assert isinstance(example.picture, Film)
    rows = []
    for setting in settings:
        answer = comparison.answer(index, setting.method, setting.keep)
        reports = videos(answer)
        if answer is None or not reports:
            continue
        rows.append(
            Kept(setting.method, f"keep {setting.label}", reports, answer.text, good(answer), reads(answer))
        )
    steps, times = views_of(example.picture.clip, rows[0].reports if rows else ())
    asked = f"{example.picture.name}: {example.question}"
    return Reel(steps, times, rows, asked, facts(comparison, index), comparison.boxes[index])
