"""Videos whose frames are images to the model, told from images by the words before each frame, and a reader of them.

Nine ids of the text range stand for the words and marks of InternVL's and SmolVLM's own processors; every other
text id reads as a word of its own. `read` is all that a processor has to offer here: `decode`.
"""

from __future__ import annotations

from collections.abc import Iterable

from .base import FAKE_IMAGE, FIRST_TEXT, GLOBAL_IMAGE, IMAGE, VISION_END, VISION_START

FRAME, FRAME_FROM, COLON, SPACE, BREAK, ZERO = 22, 23, 24, 25, 26, 27  # ZERO and on: digits
WORDS = {
    FRAME: "Frame", FRAME_FROM: "Frame from ", COLON: ":", SPACE: " ", BREAK: "\n", IMAGE: "<IMG>",
    VISION_START: "<img>", VISION_END: "</img>", FAKE_IMAGE: "<fake_token_around_image>", GLOBAL_IMAGE: "<global-img>",
} | {ZERO + d: str(d) for d in range(10)}  # fmt: skip
SMOLVLM_INTRO = [40, 41, BREAK]


class Reader:
    """The one method of a tokenizer that reading labels takes."""

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(WORDS.get(int(i), f" w{int(i)}") for i in ids)


def numbered(frames: list[list[int]]) -> list[int]:
    """InternVL: "Frame1: <img>...</img>\\nFrame2: <img>...", each frame with its marks."""
    ids = []
    for i, frame in enumerate(frames):
        ids += [*([BREAK] if i else []), FRAME, ZERO + 1 + i, COLON, SPACE, *frame]
    return ids


def timed(frames: list[list[int]]) -> list[int]:
    """SmolVLM: an introduction, "\\nFrame from 00:03:" before each frame, two line breaks behind the last one."""
    ids = list(SMOLVLM_INTRO)
    for i, frame in enumerate(frames):
        ids += [BREAK, FRAME_FROM, ZERO, ZERO, COLON, ZERO, ZERO + 3 * i, COLON, *frame]
    return [*ids, BREAK, BREAK]


assert min(FRAME, SMOLVLM_INTRO[0]) >= FIRST_TEXT
