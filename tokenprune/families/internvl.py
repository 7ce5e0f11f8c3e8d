"""InternVL: up to twelve tiles and a thumbnail of one picture stand side by side in the prompt."""

from __future__ import annotations

from torch import Tensor

from . import family
from .base import Family
from .tiles import joined_by_gap


@family
class InternVL(Family):
    """Tiles are encoded as pictures of their own and are one image again where they touch.

    A video is a list of images to the model, one tile each: neither pixels nor placeholders say that they are
    frames. The processor's words before them do ("Frame1: "), so with `patch_model(..., processor=...)` they are
    one video; without a processor nobody can read those words and each frame is an image.
    """

    model_types = ("internvl",)
    frame_label = r"Frame(\d+): ?"
    merge_friendly = True

    def same_image(self, ids: Tensor, starts: list[int], lengths: list[int]) -> list[int]:
        return joined_by_gap(starts, lengths, gap=0)
