"""A retrieval suite of drawn craters: which pictures show the crater of this one?

    from tokenprune.zoo import craters
    found = craters.suite("test", identities=500, asked=60, seed=0)
    found.gallery[0].image, found.queries[0].image, found.queries[0].relevant

In the form of CraterBench-R (2026, arXiv:2604.06245): two gallery pictures of each crater, of two and three diameters,
and five queries of some: other suns, other distances, through clouds, gaps and streaks. `test` shows ground that
training can never have drawn.
"""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass

from PIL import Image

from .splits import check_split, digest, is_test
from .terrain import SIDE, Terrain, View, draw_terrain, render

CONTEXTS = {"2x": 2.0, "3x": 3.0}
"""Gallery view -> diameters that a side shows."""

QUERIES = 5
"""Pictures of a crater that is asked for."""

PAIRS = 0.2
"""Share of the grounds on which two craters are catalogued, each in the other's pictures."""


@functools.lru_cache(maxsize=64)
def _render(terrain: Terrain, view: View) -> Image.Image:
    return Image.fromarray(render(terrain, view)).convert("RGB")


@dataclass(frozen=True)
class Picture:
    """One picture of a catalogued crater. `kind`: a key of `CONTEXTS`, or "query"."""

    id: str
    crater: str
    kind: str
    terrain: Terrain
    view: View
    relevant: tuple[str, ...] = ()  # of a query: the craters that count as found

    @property
    def image(self) -> Image.Image:
        """RGB, 112 x 112; drawn when asked for."""
        return _render(self.terrain, self.view).copy()


@dataclass(frozen=True)
class Suite:
    """Two gallery pictures of every crater, five queries of those that are asked for."""

    gallery: tuple[Picture, ...]
    queries: tuple[Picture, ...]
    split: str

    def hash(self) -> str:
        """Sixteen hex digits of all that is drawn and asked; tables that quote the suite quote this."""
        lines = [f"{p.id}|{p.crater}|{p.view}|{p.relevant}" for p in (*self.gallery, *self.queries)]
        return digest("\n".join(lines))


def gallery_view(rng: random.Random, crater: int, context: float) -> View:
    """As a mosaic shows it: centred, the afternoon sun in the west, little noise."""
    return View(
        crater, context,
        shift=(rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)),
        azimuth=math.pi + rng.uniform(-0.35, 0.35), elevation=rng.uniform(0.4, 0.7),
        contrast=rng.uniform(0.85, 1.15), brightness=rng.uniform(0.4, 0.5), noise=rng.uniform(0.01, 0.03),
        veil=rng.randrange(2**31),
    )  # fmt: skip


def query_view(rng: random.Random, crater: int, hard: float = 1.0) -> View:
    """As another camera shows it on another day. `hard` scales how far the sun, the noise and the clutter go."""
    return View(
        crater, rng.uniform(1.8, 3.2),
        shift=(rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25)), turn=rng.uniform(-0.12, 0.12),
        azimuth=math.pi + hard * rng.uniform(-1.0, 1.0), elevation=rng.uniform(0.35, 0.8),
        contrast=rng.uniform(0.6, 1.2), brightness=rng.uniform(0.35, 0.55),
        noise=0.02 + hard * rng.uniform(0.0, 0.04), blur=rng.choice((0, 0, 1)),
        clutter=round(hard * rng.choice((1, 1, 2))), veil=rng.randrange(2**31),
    )  # fmt: skip


def suite(
    split: str = "test", identities: int = 500, asked: int = 60, seed: int = 0, hard: float = 1.0
) -> Suite:
    """`identities` craters in the gallery, the first `asked` of them with queries; `hard`: see `query_view`.

    Craters on one ground are within each other's pictures, so a query for one counts both as found. The same
    arguments give the same suite everywhere.
    """
    check_split(split)
    if not 1 <= asked <= identities:
        raise ValueError(f"asked must be from 1 to {identities} identities, not {asked}")
    rng = random.Random(f"craters/{split}/{identities}/{asked}/{seed}")
    gallery: list[Picture] = []
    queries: list[Picture] = []
    while len(gallery) < len(CONTEXTS) * identities:
        terrain = draw_terrain(rng, PAIRS)
        known = len(gallery) // len(CONTEXTS)
        if is_test(terrain) != (split == "test") or known + terrain.catalogued > identities:
            continue
        key = terrain.key()
        names = tuple(f"{key}-{n}" for n in range(terrain.catalogued))
        for n, name in enumerate(names):
            for kind, context in CONTEXTS.items():
                view = gallery_view(rng, n, context)
                gallery.append(Picture(f"{name}-{kind}", name, kind, terrain, view))
            for q in range(QUERIES if known + n < asked else 0):
                queries.append(
                    Picture(f"{name}-q{q}", name, "query", terrain, query_view(rng, n, hard), names)
                )
    return Suite(tuple(gallery), tuple(queries), split)


__all__ = ["CONTEXTS", "PAIRS", "QUERIES", "SIDE", "Picture", "Suite", "gallery_view", "query_view", "suite"]
