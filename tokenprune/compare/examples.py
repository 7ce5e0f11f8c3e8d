"""Pictures and clips with questions: the bundled ones, or the user's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError
from ..media import Clip, Picture, find_clips, find_pictures

BUNDLED = Path(__file__).resolve().parents[1] / "zoo" / "examples"
QUESTION = "Describe this picture."
"""Asked about a user's picture when no question is given."""
CLIP_QUESTION = "Describe this video."
CLIP_FRAMES = 16
"""Frames that are looked at of a clip unless a number is given."""

Taken = TypeVar("Taken")


@dataclass(frozen=True)
class Film:
    """A clip as it was read for this run. Held in memory: each decoding is a process of its own."""

    name: str  # as `Picture.name`
    clip: Clip

    def load(self) -> Clip:
        """The sampled frames."""
        return self.clip


@dataclass(frozen=True)
class Example:
    """One question about one picture or clip; `expected` and `boxes` where the right answer and its place are known."""

    picture: Picture | Film
    question: str
    expected: str | None = None
    kind: str | None = None
    boxes: tuple[
        tuple[float, float, float, float], ...
    ] = ()  # left, top, right, bottom in pixels of the picture


def bundled_examples(folder: Path = BUNDLED, most: int | None = None) -> list[Example]:
    """A zoo folder's pictures and its `questions.json`, a list of {image, question, answer, kind, boxes}.

    Raises `InputError` when they are not there or not of that form.
    """
    listing = folder / "questions.json"
    try:
        examples = [
            Example(
                Picture(entry["image"], folder / entry["image"]),
                entry["question"],
                entry.get("answer"),
                entry.get("kind"),
                tuple(tuple(box) for box in entry.get("boxes", ())),
            )
            for entry in json.loads(listing.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{listing.name}: cannot read the bundled questions ({error})") from error
    return examples[:most]


def make_examples(images: Sequence[str], questions: Sequence[str]) -> tuple[list[Example], list[str]]:
    """Every question about every picture, and a message for each picture of a folder that cannot be read.

    A file named by itself must be readable, else `InputError`; in a folder a bad one is left out, and only a folder
    without any good one is an error. Every picture is decoded once here, before a model is loaded.
    """

    def take(picture: Picture) -> Picture:
        picture.load()
        return picture

    pictures, skipped = _take(images, find_pictures, take, "pictures")
    return _asked(pictures, questions, QUESTION), skipped


def make_clip_examples(
    videos: Sequence[str], questions: Sequence[str], frames: int = CLIP_FRAMES
) -> tuple[list[Example], list[str]]:
    """Every question about every clip, of which `frames` frames are looked at; else as `make_examples`.

    A clip is a video file, an animation or a folder of frames; a folder of videos is several.
    """

    def take(source: Any) -> Film:
        return Film(source.name, source.load(frames=frames, max_frames=max(frames, 768)))

    films, skipped = _take(videos, find_clips, take, "clips")
    return _asked(films, questions, CLIP_QUESTION), skipped


def _take(
    paths: Sequence[str], find: Callable[[str], list[Any]], take: Callable[[Any], Taken], what: str
) -> tuple[list[Taken], list[str]]:
    """What can be read of files and folders, and a message for what cannot."""
    taken: list[Taken] = []
    skipped: list[str] = []
    for path in paths:
        found, bad = find(path), []
        for item in found:
            try:
                taken.append(take(item))
            except InputError as error:
                if not Path(path).is_dir() or item.source == Path(path).expanduser():  # itself a clip
                    raise
                # The folder's own path stays out of what is written down.
                bad.append(str(error).replace(str(item.source), item.name))
        if len(bad) == len(found):
            raise InputError(f"{path}: none of its {len(found)} {what} can be read; {bad[0]}")
        skipped += bad
    return taken, skipped


def _asked(media: Sequence[Picture | Film], questions: Sequence[str], otherwise: str) -> list[Example]:
    asked = [q.strip() for q in questions if q.strip()] or [otherwise]
    return [Example(medium, q) for medium in media for q in asked]
