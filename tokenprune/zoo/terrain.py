"""Cratered ground as data, and pictures of it: a height field under a sun, with clouds and gaps over it.

Lengths are radii of the first catalogued crater, which lies at the origin; x runs right and y down, as in a picture.
"""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass

import numpy as np

from .splits import digest

SIDE = 112
"""Pixels of a picture's side."""

REACH = 5.6
"""Half the side of the ground on which craters lie: what the widest view of a second crater can show."""

Frame = tuple[float, float, float, float]
"""A square of the ground: its centre x, y, half its side, and how far it is turned (radians)."""

EJECTA = 2.2
"""A crater's own radii up to which it changes the ground."""

_FINE = 2  # rendered at so many times the side, then averaged: small craters are a few pixels wide
_WAVES = 48


@dataclass(frozen=True)
class Crater:
    """A bowl with a rim. `lobes`: (waves around, amplitude, phase) that bend its outline."""

    x: float
    y: float
    radius: float
    depth: float  # of the bowl, in radii
    rim: float  # its height, as a share of the depth
    wall: float  # exponent of the bowl: 2 is round, 4 has a flat floor
    fill: float  # the floor lies no deeper than this share of the depth
    peak: float  # of the central mountain, as a share of the depth
    lobes: tuple[tuple[int, float, float], ...] = ()


@dataclass(frozen=True)
class Terrain:
    """Ground around one catalogued crater or, in the share `pairs` of cases, around two close ones.

    Everything on it follows from `seed`, so telling grounds apart costs nothing and drawing one is put off.
    """

    seed: int
    pairs: float = 0.2

    def key(self) -> str:
        """Sixteen hex digits that stand for all that is drawn."""
        return digest(f"terrain 1 {self.seed} {self.pairs}")

    @property
    def craters(self) -> tuple[Crater, ...]:
        """The `catalogued` ones that pictures are taken of first; the others are only there, large ones first."""
        return _draw(self)[0]

    @property
    def catalogued(self) -> int:
        return _draw(self)[1]

    @property
    def relief(self) -> int:
        """Seeds the small hills and the brightness of the ground."""
        return _draw(self)[2]


@dataclass(frozen=True)
class View:
    """One picture of a crater: where from, under which sun, through what.

    The side is `context` diameters of the crater; `shift` and `turn` (radians) move the camera; `azimuth` is where
    the light comes from; `veil` seeds the clouds, gaps and streaks, as many as `clutter` says.
    """

    crater: int = 0
    context: float = 2.0
    shift: tuple[float, float] = (0.0, 0.0)  # in radii of the crater
    turn: float = 0.0
    azimuth: float = math.pi
    elevation: float = 0.6
    contrast: float = 1.0
    brightness: float = 0.45
    noise: float = 0.02  # standard deviation, of 1 for white
    blur: int = 0  # pixels to each side
    clutter: int = 0
    veil: int = 0

    def frame(self, terrain: Terrain) -> Frame:
        """What it shows."""
        seen = terrain.craters[self.crater]
        dx, dy = (v * seen.radius for v in self.shift)
        return seen.x + dx, seen.y + dy, self.context * seen.radius, self.turn


def draw_crater(rng: random.Random, x: float, y: float, radius: float, rich: bool = False) -> Crater:
    """A crater of any age; `rich` ones have an outline and a floor of their own, as large craters do."""
    age = rng.random()
    lobes: tuple[tuple[int, float, float], ...] = ()
    if rich:
        size = 0.02 + 0.07 * rng.random()
        lobes = tuple((n, size * rng.random() / n**0.5, rng.uniform(0, math.tau)) for n in (2, 3, 4, 5, 7))
    return Crater(
        x=x, y=y, radius=radius,
        depth=(0.42 - 0.27 * age) * rng.uniform(0.8, 1.2),
        rim=rng.uniform(0.15, 0.4) * (1 - 0.5 * age),
        wall=rng.uniform(1.8, 4.5) if rich else rng.uniform(1.8, 2.8),
        fill=rng.uniform(0.35, 1.0) if rich else rng.uniform(0.7, 1.0),
        peak=rng.uniform(0.25, 0.7) if rich and rng.random() < 0.45 else 0.0,
        lobes=lobes,
    )  # fmt: skip


def draw_terrain(rng: random.Random, pairs: float = 0.2) -> Terrain:
    """Any ground."""
    return Terrain(rng.getrandbits(63), pairs)


@functools.lru_cache(maxsize=64)
def _draw(terrain: Terrain) -> tuple[tuple[Crater, ...], int, int]:
    """Craters, how many are catalogued, and the relief. Others than these follow the power law of impacts, number above
    r ~ 1 / r^2, large ones first and so oldest."""
    rng = random.Random(terrain.seed)
    main = [draw_crater(rng, 0.0, 0.0, 1.0, rich=True)]
    if rng.random() < terrain.pairs:
        away, where = rng.uniform(1.25, 2.0), rng.uniform(0, math.tau)
        at = (away * math.cos(where), away * math.sin(where))
        main.append(draw_crater(rng, *at, rng.uniform(0.6, 0.95), rich=True))
    least, most = 0.09, 0.7
    count = round(rng.uniform(0.6, 1.4) * 1.3 * (2 * REACH) ** 2)
    others = []
    for _ in range(count):
        radius = least / math.sqrt(1 - rng.random() * (1 - (least / most) ** 2))
        at = (rng.uniform(-REACH, REACH), rng.uniform(-REACH, REACH))
        others.append(draw_crater(rng, *at, radius, rich=radius > 0.3))
    others.sort(key=lambda c: -c.radius)
    return (*main, *others), len(main), rng.randrange(2**31)


def _profile(crater: Crater, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height the crater adds, and the share of older ground it leaves."""
    x, y = (x - crater.x) / crater.radius, (y - crater.y) / crater.radius
    distance = np.sqrt(x * x + y * y)
    if crater.lobes:
        angle = np.arctan2(y, x)
        distance = distance / (1 + sum(a * np.cos(n * angle + phase) for n, a, phase in crater.lobes))
    inside = np.minimum(distance, 1.0)
    bowl = np.maximum(-1 + (1 + crater.rim) * inside**crater.wall, -crater.fill)
    outside = np.clip((EJECTA - distance) / (EJECTA - 1), 0, 1)
    height = np.where(distance < 1, bowl, crater.rim * outside**3)
    if crater.peak:
        height = height + crater.peak * np.exp(-((distance / 0.16) ** 2))
    left = 0.25 + 0.75 * np.clip((distance - 0.8) / 0.5, 0, 1)
    return height * crater.depth * crater.radius, left


def _waves(seed: int, count: int, least: float, most: float, frame: Frame, n: int) -> np.ndarray:
    """(n, n) sum of plane waves with amplitudes like their lengths: each is a product of a row and a column."""
    rng = np.random.RandomState(seed)  # its stream is frozen by numpy
    length = least * (most / least) ** rng.rand(count)
    way, phase = math.tau * rng.rand(count), math.tau * rng.rand(count)
    cx, cy, half, turn = frame
    kx, ky = (math.tau / length) * np.cos(way), (math.tau / length) * np.sin(way)
    phase = phase + kx * cx + ky * cy
    kx, ky = kx * math.cos(turn) + ky * math.sin(turn), -kx * math.sin(turn) + ky * math.cos(turn)
    at = (np.arange(n) + 0.5) / n * 2 * half - half
    column, row = np.outer(kx, at) + phase[:, None], np.outer(ky, at)
    height = np.cos(row).T @ (length[:, None] * np.cos(column)) - np.sin(row).T @ (
        length[:, None] * np.sin(column)
    )
    return height.astype(np.float32) / math.sqrt(count)


def heights(terrain: Terrain, frame: Frame, n: int) -> np.ndarray:
    """(n, n) heights of the ground in a frame, in radii."""
    cx, cy, half, turn = frame
    at = (np.arange(n) + 0.5) / n * 2 * half - half
    cos, sin = math.cos(turn), math.sin(turn)
    ground = 0.010 * _waves(terrain.relief, _WAVES, 0.15, 3.0, frame, n)
    step = 2 * half / n
    at32 = at.astype(np.float32)
    for crater in terrain.craters:
        dx, dy = crater.x - cx, crater.y - cy
        u, v = cos * dx + sin * dy, -sin * dx + cos * dy  # in the picture's own directions
        reach = EJECTA * crater.radius * 1.1
        left, right = int((u - reach + half) / step), int((u + reach + half) / step) + 2
        top, bottom = int((v - reach + half) / step), int((v + reach + half) / step) + 2
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, n), min(bottom, n)
        if left >= right or top >= bottom:
            continue
        px, py = at32[None, left:right], at32[top:bottom, None]
        height, kept = _profile(crater, cx + cos * px - sin * py, cy + sin * px + cos * py)
        window = ground[top:bottom, left:right]
        window *= kept
        window += height
    return ground


def _shade(ground: np.ndarray, step: float, view: View, turn: float) -> np.ndarray:
    """Brightness of a matt surface; the sun keeps its place on the ground when the camera turns."""
    gy, gx = np.gradient(ground, step)
    azimuth = view.azimuth - turn
    slope = gx * math.cos(azimuth) + gy * math.sin(azimuth)
    lit = math.sin(view.elevation) - 1.2 * slope * math.cos(view.elevation)
    return np.maximum(lit, 0.0) / np.sqrt(1 + 1.44 * (gx**2 + gy**2)) / math.sin(view.elevation)


def _veil(picture: np.ndarray, view: View) -> np.ndarray:
    """Clouds, gaps in the data and streaks of dust over a picture."""
    rng = random.Random(view.veil)
    n = len(picture)
    at = (np.arange(n) + 0.5) / n
    for _ in range(view.clutter):
        kind = rng.choice(("cloud", "cloud", "gap", "streak", "streak"))
        x, y, size = rng.random(), rng.random(), rng.uniform(0.08, 0.22)
        way = rng.uniform(0, math.pi)
        across = (at[None] - x) * math.sin(way) - (at[:, None] - y) * math.cos(way)
        along = (at[None] - x) * math.cos(way) + (at[:, None] - y) * math.sin(way)
        if kind == "cloud":
            cover = 0.75 * np.exp(-((across / size) ** 2) - (along / (1.6 * size)) ** 2)
            picture = picture * (1 - cover) + rng.uniform(0.6, 0.9) * cover
        elif kind == "gap":
            edge = rng.uniform(0.3, 0.42)
            off = (at[None] - 0.5) * math.cos(way * 2) + (at[:, None] - 0.5) * math.sin(way * 2)
            picture = np.where(off > edge, 0.02, picture)
        else:
            bend = across + 0.3 * rng.uniform(-1, 1) * along**2
            picture = picture * (1 - rng.uniform(0.25, 0.5) * np.exp(-((bend / 0.012) ** 2)))
    return picture


def render(terrain: Terrain, view: View, side: int = SIDE) -> np.ndarray:
    """(side, side) uint8, grey."""
    return picture_of(terrain, view, view.frame(terrain), side)


def picture_of(
    terrain: Terrain, view: View, frame: Frame, side: int, ground: tuple[np.ndarray, Frame] | None = None
) -> np.ndarray:
    """As `render`, of any square of the ground; from `ground`, heights with their own frame, it is a coarse copy."""
    n = side * _FINE
    height = heights(terrain, frame, n) if ground is None else cut(*ground, frame, n)
    lit = _shade(height, 2 * frame[2] / n, view, frame[3])
    lit = lit * (1 + 0.08 * _waves(terrain.relief + 1, 12, 1.0, 4.0, frame, n))
    lit = lit.reshape(side, _FINE, side, _FINE).mean((1, 3))
    picture = view.brightness + 0.30 * view.contrast * (lit - 1.0)
    picture = _veil(picture, view)
    for _ in range(view.blur):
        for axis in (0, 1):
            padded = np.pad(picture, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
            before, here, after = (np.take(padded, range(i, i + side), axis) for i in range(3))
            picture = (before + 2 * here + after) / 4
    grain = np.random.RandomState(view.veil).standard_normal((side, side))
    return (255 * np.clip(picture + view.noise * grain, 0, 1)).astype(np.uint8)


def cut(ground: np.ndarray, own: Frame, frame: Frame, n: int) -> np.ndarray:
    """(n, n) heights in `frame`, interpolated from those in `own`, which is not turned."""
    cx, cy, half, turn = frame
    at = ((np.arange(n, dtype=np.float32) + 0.5) / n * 2 - 1) * half
    scale = len(ground) / (2 * own[2])
    cos, sin = math.cos(turn), math.sin(turn)
    x = (cx - own[0] + own[2] + cos * at[None] - sin * at[:, None]) * scale - 0.5
    y = (cy - own[1] + own[2] + sin * at[None] + cos * at[:, None]) * scale - 0.5
    x, y = (np.clip(w, 0, len(ground) - 1.001) for w in (x, y))
    left, top = x.astype(np.int32), y.astype(np.int32)
    x, y = x - left, y - top
    flat, corner = ground.ravel(), top * len(ground) + left
    upper = flat[corner] * (1 - x) + flat[corner + 1] * x
    lower = flat[corner + len(ground)] * (1 - x) + flat[corner + len(ground) + 1] * x
    return upper * (1 - y) + lower * y
