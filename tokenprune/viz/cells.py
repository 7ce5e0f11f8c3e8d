"""From an `ImageReport` to the grid of cells a picture is divided into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..tokens import NEWLINE, ImageReport

ABSENT, DROPPED, KEPT, MERGED = 0, 1, 2, 3


@dataclass(frozen=True)
class Cells:
    """One view of a picture as (rows, cols) cells, each the patch of one visual token."""

    state: np.ndarray  # (rows, cols) ABSENT, DROPPED, KEPT or MERGED (into another token, or others into it)
    cluster: np.ndarray  # (rows, cols) the token that stands for this one; -1 where there is none
    centre: np.ndarray  # (rows, cols) bool: its own token survived
    score: np.ndarray  # (rows, cols) float, NaN where unknown


def kept_by_step(report: ImageReport) -> list[int]:
    """How many tokens were kept of every temporal step of a clip; one number for an image.

    A step is one entry of the grid's t: on some models several frames. Newline tokens count for the step they end.
    """
    when = np.asarray(report.coords, dtype=np.int64)[:, 1]
    steps = report.grid[0] if report.grid is not None else int(when.max()) + 1
    own = when[list(report.kept)]
    return np.bincount(own[own >= 0], minlength=steps).tolist()


def cells_of(report: ImageReport, *, part: int | None = None, frame: int = 0) -> Cells:
    """The cells of one part of an image (or one frame of a video).

    A picture that was cut into crops has several parts that overlap; the default is the first one, part 0: the base
    view or thumbnail, which covers all of it. Newline tokens have no place in the picture and are left out.
    """
    coords = np.asarray(report.coords, dtype=np.int64)
    here = coords[:, 2] != NEWLINE
    if not here.any():
        raise InputError(
            f"image {report.ordinal} of row {report.row}: its tokens have no coordinates to draw"
        )
    if part is None:
        part = int(coords[here, 0].min())
    here &= (coords[:, 0] == part) & (coords[:, 1] == frame)
    if not here.any():
        raise InputError(
            f"image {report.ordinal} of row {report.row}: no tokens in part {part}, frame {frame}"
        )
    index = np.flatnonzero(here)
    y, x = coords[index, 2], coords[index, 3]
    shape = (int(y.max()) + 1, int(x.max()) + 1)

    kept = np.zeros(report.before, dtype=bool)
    kept[report.kept] = True
    owner = np.where(kept, np.arange(report.before), -1)
    if report.owner is not None:
        owner = np.where(kept, owner, np.asarray(report.owner, dtype=np.int64))
    members = np.bincount(owner[owner >= 0], minlength=report.before)
    state = np.where(kept, KEPT, DROPPED)
    state[(owner >= 0) & (members[np.maximum(owner, 0)] > 1)] = MERGED

    def grid(values: np.ndarray, empty: float) -> np.ndarray:
        out = np.full(shape, empty, dtype=values.dtype)
        out[y, x] = values[index]
        return out

    score = (
        np.full(report.before, np.nan)
        if report.scores is None
        else np.asarray(report.scores.float(), dtype=np.float64)
    )
    return Cells(grid(state, ABSENT), grid(owner, -1), grid(kept, False), grid(score, np.nan))
