"""One picture with its tokens drawn on it.

Kept patches stay as they are, dropped ones sink into night (bright pictures) or fog (dark ones), merged ones are
tinted, one tint a cluster. A thin line runs around what was kept.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ..errors import InputError
from ..tokens import ImageReport
from . import palette
from .cells import ABSENT, DROPPED, MERGED, Cells, cells_of

DIM = 0.86  # how far dropped patches sink
TINT = 0.44

Box = tuple[float, float, float, float]


def fit(image: Image.Image, side: int) -> Image.Image:
    """The picture scaled so that its longer edge is `side` pixels."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def overlay(
    image: Image.Image,
    report: ImageReport,
    *,
    side: int = 448,
    heat: bool = False,
    box: Box | None = None,
    part: int | None = None,
    frame: int = 0,
) -> Image.Image:
    """The picture, its longer edge `side` pixels, with what the report says drawn on it.

    heat: instead of dimming, colour every patch by the rank of its score (a report without scores is an `InputError`).
    box: (left, top, right, bottom) as shares of the picture: what the grid covers, where the processor crops; what
    lies outside was never read and is dimmed. part, frame: see `cells_of`; several crops are drawn by their base view.
    """
    cells = cells_of(report, part=part, frame=frame)
    picture = fit(image, side)
    left, top, right, bottom = box or (0.0, 0.0, 1.0, 1.0)
    rows, cols = cells.state.shape
    columns = _edges(cols, left * picture.width, right * picture.width)
    lines = _edges(rows, top * picture.height, bottom * picture.height)
    pixels = np.asarray(picture, dtype=np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    shade = np.array(palette.shade(float(grey.mean())), dtype=np.float32)
    out = grey[..., None] * (1 - DIM) + shade * DIM  # all dropped, then lit up
    inside = np.s_[lines[0] : lines[-1], columns[0] : columns[-1]]

    def spread(per_cell: np.ndarray) -> np.ndarray:
        return np.repeat(np.repeat(per_cell, np.diff(lines), axis=0), np.diff(columns), axis=1)

    if heat:
        if not np.isfinite(cells.score).any():
            raise InputError("this report has no scores to draw as a heat map")
        rank = spread(palette.ranks(cells.score))
        known = np.isfinite(rank)
        # Squared: the upper half of the ranks is where methods choose; shaded by the picture so that it shows through.
        colour = palette.ramp(np.where(known, rank, 0) ** 2)
        blend = colour * (0.7 + 0.3 * grey[inside][..., None] / 255)
        out[inside] = np.where(known[..., None], blend, out[inside])
        return Image.fromarray(_bytes(out))

    state = spread(cells.state)
    tints = palette.cluster_tints(np.where(cells.state == MERGED, cells.cluster, -1))
    colour = np.zeros((*cells.state.shape, 3), dtype=np.float32)
    for cluster, tint in tints.items():
        colour[cells.cluster == cluster] = palette.TINTS[tint]
    # The place where a merged token lives is tinted less: what the others went into stays recognisable.
    strength = spread(np.where(cells.state == MERGED, np.where(cells.centre, TINT / 2, TINT), 0.0))[..., None]
    lit = pixels[inside] * (1 - strength) + spread(colour) * strength
    out[inside] = np.where((state > DROPPED)[..., None], lit, out[inside])
    result = Image.fromarray(_bytes(out))
    _outline(result, cells, columns, lines)
    return result


def _edges(count: int, start: float, stop: float) -> np.ndarray:
    return np.round(np.linspace(start, stop, count + 1)).astype(int)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def _outline(image: Image.Image, cells: Cells, columns: np.ndarray, lines: np.ndarray) -> None:
    """Amber between what the model reads and what it does not; a thin white line between clusters."""
    draw = ImageDraw.Draw(image)
    rows, cols = cells.state.shape
    width = max(1, round(max(image.size) / 260))
    seen = np.pad(cells.state > DROPPED, 1)
    # One label per drawn region: all plainly kept cells share -1, every cluster is its own.
    label = np.pad(np.where(cells.state == MERGED, cells.cluster, -1), 1, constant_values=-2)
    absent = np.pad(cells.state == ABSENT, 1, constant_values=True)
    edges: list[tuple[bool, tuple[int, int, int, int]]] = []
    for y in range(rows + 1):
        for x in range(cols + 1):
            for dy, dx in ((0, 1), (1, 0)):  # this corner's line to the right, and downwards
                a, b = (y + dy, x + dx), (y + 1, x + 1)  # the padded cells on its two sides
                if (dx and x == cols) or (dy and y == rows) or (absent[a] and absent[b]):
                    continue
                border = seen[a] != seen[b]
                if border or (seen[a] and label[a] != label[b]):
                    edges.append((border, (columns[x], lines[y], columns[x + dx], lines[y + dy])))
    right, low = image.width - 1, image.height - 1
    for border, (x0, y0, x1, y1) in sorted(edges):  # amber over white
        at = (min(x0, right), min(y0, low), min(x1, right), min(y1, low))
        draw.line(
            at, fill=palette.EDGE if border else (255, 255, 255), width=width if border else max(1, width - 1)
        )
