"""Prompts with pictures and clips, drawn from seeds: the same for vLLM and for Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

BEFORE = "the answer is yes. what is in the image? "
AFTER = "where is the red square? how many circles are there? describe the picture: "
QUESTION = "which colour is the largest shape? "
FPS = 8.0


@dataclass(frozen=True)
class Case:
    """A prompt as a list of words and media; a medium is "HxW" or "TxHxW" in pixels and frames."""

    name: str
    parts: tuple[str, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)  # a request's own `mm_processor_kwargs`

    @property
    def media(self) -> list[tuple[str, np.ndarray]]:
        """("image", (H, W, 3)) or ("video", (T, H, W, 3)) in the order of the prompt."""
        return [drawn(part, i) for i, part in enumerate(p for p in self.parts if is_medium(p))]

    def text(self, marks: dict[str, str]) -> str:
        """The prompt with the model's mark for each medium."""
        return "".join(marks[kind_of(p)] if is_medium(p) else p for p in self.parts)


def is_medium(part: str) -> bool:
    return part.replace("x", "").isdigit()


def kind_of(part: str) -> str:
    return "video" if part.count("x") == 2 else "image"


def drawn(part: str, place: int) -> tuple[str, np.ndarray]:
    """Smooth noise: resizing by either library leaves something to tell apart."""
    size = [int(n) for n in part.split("x")]
    values = np.random.default_rng([*size, place]).integers(0, 255, (*size, 3), dtype=np.uint8)
    return kind_of(part), values


IMAGES = [
    Case("image", (BEFORE, "32x40", AFTER)),
    Case("tall image", (BEFORE, "96x16", AFTER)),
    Case("same image, other question", (BEFORE, "32x40", QUESTION)),
    Case("two images", (BEFORE, "32x40", " and ", "24x32", AFTER)),
    Case("adjacent images", (BEFORE, "32x40", "40x24", AFTER)),
    Case("image, own budget", (BEFORE, "32x40", AFTER), {"tokenprune": {"keep": 0.7}}),
]
CLIPS = [
    Case("video", (BEFORE, "6x24x32", AFTER)),
    Case("two videos and an image", ("what? ", "4x24x32", " and ", "32x40", " or ", "4x32x24", AFTER)),
    Case("video, own budget", (BEFORE, "6x24x32", AFTER), {"tokenprune": {"video": {"keep": 5}}}),
    Case("no picture", (BEFORE, AFTER)),
]
