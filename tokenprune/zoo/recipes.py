"""The recipes of the embedded models as data: phases in order, and what their cards report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Phase:
    """`run`: what trains, a key of `TRAINERS`. `stage`: phases of one stage run side by side. `team`: all processes
    share this one."""

    name: str
    stage: int
    run: str
    options: dict[str, Any] = field(default_factory=dict)
    team: bool = False


@dataclass(frozen=True)
class Row:
    """A row of the card: a suite, a split, the share of the visual tokens left (at random), how many questions."""

    suite: str
    split: str
    keep: float
    questions: int


@dataclass(frozen=True)
class Recipe:
    """`rung`: what was aimed at, in words, for the card. `thin`: one line in so many of the log is kept. `export`: the
    module of `training` that writes the model, where it is no vision-language model."""

    version: str
    phases: tuple[Phase, ...]
    rows: dict[str, Row] = field(default_factory=dict)
    rung: str = ""
    thin: int = 2
    export: str = ""


#: Trainer -> (module of `training`, its function).
TRAINERS = {
    "tower": ("tower", "train"),
    "language": ("language", "train"),
    "pictures": ("pictures", "train"),
    "cells": ("cells", "train"),
    "words": ("words", "train"),
    "align": ("sight", "align"),
    "sight": ("sight", "train"),
    "craters": ("craters", "train"),
}

WINDOW = {"window": 7}
WHOLE = {"window": 14}

# Windows of 7 x 7 patches first: as crowded as whole pictures and five times as cheap. Then whole pictures; the
# relations, which only the tower can learn quickly, settle in `language14` and `tower10`.
TINY_LLAVA = Recipe(
    version="1.0",
    phases=(
        Phase("tower7", 0, "tower", {"minutes": 46, "rate": 2e-3, "batch": 64, **WINDOW}),
        Phase("language4", 0, "language", {"minutes": 18, "layers": 4, "rate": 2e-3, "batch": 32, **WINDOW}),
        Phase("tower14", 1, "tower", {"minutes": 6, "rate": 5e-4, "batch": 16, "start": "tower7", **WHOLE}),
        Phase("language8", 1, "language", {"minutes": 16, "layers": 8, "rate": 2e-3, "batch": 32,
                                           "start": "language4", **WINDOW}),
        Phase("language14", 2, "language", {"minutes": 8, "layers": 8, "rate": 1.5e-3, "batch": 16,
                                            "start": "language8", "add_smooth": True, **WHOLE}, team=True),
        Phase("tower10", 3, "tower", {"minutes": 13, "rate": 1.2e-3, "batch": 32, "start": "tower14", "window": 10}),
        Phase("language14b", 3, "language", {"minutes": 13, "layers": 8, "rate": 1.2e-3, "batch": 16,
                                             "start": "language14", **WHOLE}),
        Phase("pictures8", 4, "pictures", {"minutes": 10, "align_minutes": 2, "layers": 8, "rate": 1e-3,
                                           "tower_rate": 5e-4, "tower": "tower10", "language": "language14b",
                                           "batch": 16, **WHOLE}, team=True),
        Phase("pictures16", 5, "pictures", {"minutes": 17, "layers": 16, "rate": 1e-3, "tower_rate": 5e-4,
                                            "start": "pictures8", "batch": 16, **WHOLE}, team=True),
        Phase("pictures16b", 6, "pictures", {"minutes": 11, "layers": 16, "rate": 7e-4, "tower_rate": 4e-4,
                                             "start": "pictures16", "batch": 16, **WHOLE}, team=True),
    ),
    rows={
        "test": Row("scenes", "test", 1.0, 2250),
        "held_out": Row("scenes", "held_out", 1.0, 900),
        "blind": Row("scenes", "test", 0.0, 900),
        "random_0.111": Row("scenes", "test", 0.111, 900),
    },
)  # fmt: skip

# The decoder starts from the shipped `tiny-llava`'s, which knows the words of the scenes and reads short words; it
# learns lines in minutes, pages in half an hour. The tower learns beside it; `align` shows it whole pages and ties it
# to the decoder's embeddings. The shipped weights went back and forth (`align-2`, `sight-c`, `words-2`, `words-3` and
# `align-3` in the log), because lessons were added on the way: where a token stands, and where the answer stands. A
# fresh run has them all from the start, and the minutes of all turns together. What happens in a clip is learnt last
# and slowest, so `films` shows five a step; `settle` brings back what the scenes lost meanwhile. Phases of one
# function need seeds of their own, or draw the same lessons.
TINY_QWEN = Recipe(
    version="1.0",
    phases=(
        Phase("cells", 0, "cells", {"minutes": 22, "pages": 24, "scenes": 8, "rate": 2e-3}),
        Phase("words-lines", 0, "words", {"minutes": 7, "warm": True, "lines": 1.0, "scenes": 3, "tokens": 2200}),
        Phase("words-pages", 1, "words", {"minutes": 80, "start": "words-lines", "lines": 0.08, "scenes": 5, "seed": 2,
                                          "whole_scenes": 0.6, "clips": 0.3, "tokens": 2500}),
        Phase("align", 2, "align", {"minutes": 14, "words": "words-pages", "rate": 1.2e-3, "wide": 0.7}),
        Phase("sight", 3, "sight", {"minutes": 25, "start": "align", "rate": 4e-4}),
        Phase("together", 4, "sight", {"minutes": 8, "start": "sight", "rate": 2e-4, "tower_rate": 1e-4, "seed": 4}),
        Phase("films", 5, "sight", {"minutes": 28, "start": "together", "rate": 5e-4, "clips": 0.85, "films": 5,
                                    "tokens": 1100, "lines": 0.04, "scene_weight": 1.0, "fresh": 0.6, "seed": 11}),
        Phase("settle", 6, "sight", {"minutes": 8, "start": "films", "rate": 3e-4, "clips": 0.42, "films": 4,
                                     "pictures": 5, "tokens": 1200, "lines": 0.04, "scene_weight": 1.0, "fresh": 0.7,
                                     "seed": 17}),
    ),
    rows={
        f"{suite}{mark}": Row(suite, split, keep, few if mark else many)
        for suite, many, few in (("documents", 300, 150), ("scenes", 900, 270), ("clips", 280, 140))
        for mark, split, keep in (("", "test", 1.0), ("_held_out", "held_out", 1.0), ("_blind", "test", 0.0),
                                  ("_random_0.111", "test", 0.111))
    },
    rung="without a GPU: pages of 100 to 300 visual tokens and 20 to 80 characters",
    thin=4,
)  # fmt: skip

# In windows that lie anywhere on the grid a position says nothing, so what the patches show has to; whole pictures then
# add what is far away; at last pictures are told apart as the suite ranks them, and the class token matters little.
CRATER_VIT = Recipe(
    version="1.0",
    phases=(
        Phase("windows", 0, "craters", {"minutes": 12, "rate": 2e-3, "batch": 10, "window": 10}),
        Phase("whole", 1, "craters", {"minutes": 22, "rate": 1.2e-3, "batch": 6, "window": 14, "start": "windows",
                                      "seed": 2}),
        Phase("late", 2, "craters", {"minutes": 24, "rate": 1e-3, "batch": 8, "window": 14, "start": "whole",
                                     "seed": 3, "fresh": 3,
                                     "weights": {"patches": 1.0, "late": 1.0, "class": 0.05, "relief": 1.0}}),
    ),
    thin=4,
    export="craters",
)  # fmt: skip

RECIPES = {"tiny-llava": TINY_LLAVA, "tiny-qwen": TINY_QWEN, "crater-vit": CRATER_VIT}


def assembler(model: str) -> Callable[[Path], Any]:
    """What turns the file of a last phase into the stock model with its weights."""
    from .training import pictures, sight

    parts = pictures.Parts if model == "tiny-llava" else sight.Parts
    return lambda path: parts.read(path).assemble()


def saver(model: str) -> Callable[..., None]:
    """What writes the folder of a model."""
    from . import build, build_qwen

    return (build if model == "tiny-llava" else build_qwen).save_folder
