"""Tiles of one picture that reach a model as pictures of their own: which runs of placeholders belong together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def joined_by_gap(starts: Sequence[int], lengths: Sequence[int], gap: int) -> list[int]:
    """Image number of each run of one row: runs with `gap` tokens between them are tiles of one picture."""
    image, out = 0, []
    for i, start in enumerate(starts):
        image += i > 0 and starts[i - 1] + lengths[i - 1] + gap != start
        out.append(image)
    return out


def closed_by_mark(ids: Tensor, starts: Sequence[int]) -> list[int]:
    """Image number of each run of one row's (L,) `ids` where a mark announces the whole picture, which comes last.

    That mark is the token before the row's last run, whatever its id.
    """
    whole, image, out = int(ids[starts[-1] - 1]), 0, []
    for start in starts:
        out.append(image)
        image += int(ids[start - 1]) == whole
    return out


def opened_by_mark(ids: Tensor, starts: Sequence[int]) -> list[int]:
    """The same where each picture opens with the mark that stands before the row's first run."""
    first = int(ids[starts[0] - 1])
    image, out = -1, []
    for start in starts:
        image += int(ids[start - 1]) == first
        out.append(image)
    return out
