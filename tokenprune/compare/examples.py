"""Pictures with questions: the bundled ones, or the user's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..media import Picture, find_pictures

BUNDLED = Path(__file__).resolve().parents[1] / "zoo" / "examples"
QUESTION = "Describe this picture."
"""Asked about a user's picture when no question is given."""


@dataclass(frozen=True)
class Example:
    """One question about one picture; `expected` and `boxes` where the right answer and its place are known."""

    picture: Picture
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
    asked = [q.strip() for q in questions if q.strip()] or [QUESTION]
    pictures: list[Picture] = []
    skipped: list[str] = []
    for image in images:
        found, bad = find_pictures(image), []
        for picture in found:
            try:
                picture.load()
                pictures.append(picture)
            except InputError as error:
                if not Path(image).is_dir():
                    raise
                # The folder's own path stays out of what is written down.
                bad.append(str(error).replace(str(picture.source), picture.name))
        if len(bad) == len(found):
            raise InputError(f"{image}: none of its {len(found)} pictures can be read; {bad[0]}")
        skipped += bad
    return [Example(p, q) for p in pictures for q in asked], skipped
