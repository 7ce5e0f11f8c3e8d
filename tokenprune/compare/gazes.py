"""Where a decode-stage method looked while the answers of a comparison were written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..chat import Medium
from ..media import Clip
from ..tokens import ImageReport
from ..viz import GazePage, Gazing, View, gaze_strip, kept_by_step, looks_of, save_gif
from ..viz.overlay import Box, fit
from .captions import caption_of, facts, good
from .clips import videos, views_of
from .result import Answer, Comparison
from .settings import Setting

STRIPS, GIFS = 4, 12
"""Examples on the page of strips, and those that get an animation."""
EDGE = 1000
"""Pixels that a picture's longer edge is held in memory with: more than any drawing shows."""
LEGEND = "lit: what a focal layer chose, and the layers after it read   ·   marked: the words this step wrote"


def draw_gazes(
    comparison: Comparison, settings: Sequence[Setting], examples: Sequence[int], folder: Path, stem: str
) -> list[Path]:
    """Write one method's `<stem>.png` and its animations into `folder`; returns their paths, the strip first.

    Of several budgets the one that reads least is drawn: it says most. Drawn is the report of the run that gave the
    answer. Examples answered without a decode step are passed over; `OSError` when a file cannot be written.
    """
    told = [(index, answer) for index in examples if (answer := _tightest(comparison, settings, index))]
    if not told:
        return []
    method = settings[0].method
    stories = [_story(comparison, index, answer) for index, answer in told]
    caption = caption_of(comparison, LEGEND)
    if any(int(view.report.coords[:, 0].max()) > 0 for story in stories for view in story.views):
        caption += "   ·   of several crops the overview is drawn"
    title = f"Where {method} looks while the answer is written"
    written = [folder / f"{stem}.png"]
    longest = sorted(stories, key=lambda story: -len(story.looks))[
        :STRIPS
    ]  # an answer of one word says little
    gaze_strip(longest, title=title, caption=caption).save(written[0], compress_level=4)
    for (index, _), story in zip(told, stories, strict=True):
        number = "" if len(comparison.examples) == 1 else f"-{index + 1}"
        written.append(folder / f"{stem}{number}.gif")
        page = GazePage(story.views, story.looks, method=method, keep=story.keep, question=story.question)
        save_gif(page, written[-1])
    return written


def _tightest(comparison: Comparison, settings: Sequence[Setting], index: int) -> Answer | None:
    """The answer for which a decode step read least."""
    found = []
    for setting in settings:
        answer = comparison.answer(index, setting.method, setting.keep)
        look = answer.report.fixation if answer is not None and answer.report is not None else None
        if answer is not None and look is not None and look.choices:
            found.append((look.sparse_share, len(found), answer))
    return min(found)[2] if found else None


def _story(comparison: Comparison, index: int, answer: Answer) -> Gazing:
    example, report = comparison.examples[index], answer.report
    assert report is not None and report.fixation is not None and answer.keep is not None
    views = gaze_views(example.picture.load(), videos(answer), comparison.boxes[index])
    label = f"keep {Setting(answer.method, answer.keep).label}"
    story = [*facts(comparison, index), (answer.method, answer.text, good(answer))]
    return Gazing(views, looks_of(report, answer.written), example.question, label, story)


def gaze_views(medium: Medium, reports: Sequence[ImageReport], box: Box | None) -> list[View]:
    """The picture, or one frame for each temporal step of the clip, as the images of a report saw them."""
    if not isinstance(medium, Clip):
        return [View(_held(medium), reports[0], 0, 0, box)]
    frames, _ = views_of(medium, reports)
    where = [(place, t) for place, r in enumerate(reports) for t in range(len(kept_by_step(r)))]
    return [
        View(_held(own[0]), reports[place], place, t, box)
        for own, (place, t) in zip(frames, where, strict=True)
    ]


def _held(image: Image.Image) -> Image.Image:
    return fit(image, min(EDGE, max(image.size)))
