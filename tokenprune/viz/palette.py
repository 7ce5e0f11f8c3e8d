"""Colours: of the page, of clusters and of scores."""

from __future__ import annotations

import numpy as np

Colour = tuple[int, int, int]

PAGE: Colour = (255, 255, 255)
INK: Colour = (28, 32, 40)
FAINT: Colour = (120, 127, 138)
RULE: Colour = (226, 229, 234)
GOOD: Colour = (22, 138, 82)
BAD: Colour = (205, 52, 52)
SHADES: tuple[Colour, Colour] = ((34, 38, 48), (241, 242, 245))  # what dropped patches sink into, see `shade`
EDGE: Colour = (255, 176, 32)  # around what was kept
MARK: Colour = (255, 226, 166)  # behind the newest words of an answer

# Ten tints of similar lightness and clearly different hue, so that no cluster looks more important than another.
TINTS = np.array(
    [
        (66, 133, 244), (244, 143, 52), (38, 166, 91), (214, 73, 131), (129, 96, 214),
        (32, 170, 180), (196, 156, 24), (222, 84, 72), (112, 142, 40), (170, 108, 70),
    ],
    dtype=np.float32,
)  # fmt: skip

# Anchors of a perceptually even ramp, dark violet to pale yellow: readable without colour vision and in print.
_RAMP = np.array(
    [
        (13, 8, 40),
        (64, 16, 104),
        (130, 37, 123),
        (196, 60, 104),
        (240, 110, 84),
        (253, 177, 106),
        (252, 246, 186),
    ],
    dtype=np.float32,
)


def shade(luminance: float) -> Colour:
    """Night for a bright picture, fog for a dark one: whichever is further from its mean luminance (0 to 255)."""
    return max(SHADES, key=lambda colour: abs(colour[0] - luminance))


def ramp(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] of any shape -> (..., 3) float colours."""
    at = np.clip(values, 0, 1) * (len(_RAMP) - 1)
    return np.stack([np.interp(at, np.arange(len(_RAMP)), _RAMP[:, c]) for c in range(3)], axis=-1)


def ranks(values: np.ndarray) -> np.ndarray:
    """Share of the finite values that are smaller, in [0, 1]; NaN stays NaN, equal values share their mean rank.

    Scores of different methods differ by orders of magnitude and have long tails; their order is what selects.
    """
    out = np.full(values.shape, np.nan)
    finite = np.isfinite(values)
    if finite.any():
        ordered, inverse, counts = np.unique(values[finite], return_inverse=True, return_counts=True)
        middle = np.cumsum(counts) - (counts + 1) / 2
        out[finite] = middle[inverse] / max(len(inverse) - 1, 1) if len(ordered) > 1 else 0.5
    return out


def cluster_tints(cluster: np.ndarray) -> dict[int, int]:
    """A tint for each cluster of a (rows, cols) map so that no two that touch share one (greedy, ten tints)."""
    touching: dict[int, set[int]] = {int(c): set() for c in np.unique(cluster) if c >= 0}
    for a, b in (
        (cluster[:, :-1], cluster[:, 1:]),
        (cluster[:-1], cluster[1:]),
        (cluster[:-1, :-1], cluster[1:, 1:]),
        (cluster[:-1, 1:], cluster[1:, :-1]),
    ):
        differ = (a != b) & (a >= 0) & (b >= 0)
        for one, two in set(zip(a[differ].tolist(), b[differ].tolist(), strict=True)):
            touching[one].add(two)
            touching[two].add(one)
    tint: dict[int, int] = {}
    for place, c in enumerate(touching):
        taken = {tint[other] for other in touching[c] if other in tint}
        free = [t for t in range(len(TINTS)) if t not in taken] or list(range(len(TINTS)))
        tint[c] = free[place % len(free)]  # not always the first free one: use the whole palette
    return tint
