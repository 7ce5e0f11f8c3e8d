"""Attention time of a decode step under `fixation`, against the fastest dense path (query heads folded into rows).

The layers' caches are distinct, so nothing stays in a processor's cache from one layer to the next. Only attention
is timed: at batch 1 the weights of a 7B model cost several times as much, and no selection saves them; whole steps
over many lengths and batches are in `fixation_grid`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..hooks.fixation import Fixations
from ..hooks.gaze import Gaze
from ..kernels.decode import dense_step
from ..methods import Reducer, get_method
from .result import Line
from .sizes import Size
from .timer import Ratio, quiet, rounds

BATCHES = (1, 8)


def ideal(size: Size, method: Reducer, visual: int | None = None) -> float:
    """Keys read per step, as a share of the dense step's; with `visual` tokens, the size's own by default."""
    visual = size.visual if visual is None else visual
    focal, stored = len(method.focal_layers(size.layers)), visual + size.text
    sparse = method.num_read(visual) + size.text
    return (focal * stored + (size.layers - focal) * sparse) / (size.layers * stored)


@torch.no_grad()
def measure(size: Size, count: int, *, tick: Callable[[int, int, str], None] | None = None) -> list[Line]:
    """`count` rounds of a dense and a sparse step of every layer's attention, at batch 1 and 8."""
    method, goals, lines = get_method("fixation", keep=size.keep), dict(size.goals), []
    for place, batch in enumerate(BATCHES):
        steps = Steps(size, method, batch)
        variants = {"dense": steps.dense, "dense again": steps.dense, "sparse": steps.sparse}
        times: dict[str, list[float]] = {name: [] for name in variants}
        with quiet():
            for run in (
                *variants.values(),
                steps.sparse,
            ):  # the first step is dense before its first focal layer
                run()
            for done, taken in enumerate(rounds(variants, count)):
                for name, seconds in taken.items():
                    times[name].append(seconds)
                if tick is not None:
                    tick(place * count + done + 1, len(BATCHES) * count, f"{size.name}, batch {batch}")
        again, sparse = (Ratio.of(times[name], times["dense"]) for name in ("dense again", "sparse"))
        lines += [
            Line(size.name, f"dense again, batch {batch}", "dense", again),
            Line.judged(size.name, f"sparse, batch {batch}", "dense", sparse, goals, f"batch {batch}"),
        ]
    return lines


class Steps:
    """Queries, caches and the state of a conversation with one picture."""

    def __init__(self, size: Size, method: Reducer, batch: int) -> None:
        g, width = torch.Generator().manual_seed(0), size.hidden // size.heads
        stored = size.visual + size.text

        def draw(heads: int, tokens: int) -> Tensor:
            return torch.randn(batch, heads, tokens, width, generator=g).to(size.dtype)

        self.scaling = width**-0.5
        self.query = draw(size.heads, 1)
        self.keys = [draw(size.kv_heads, stored) for _ in range(size.layers)]
        self.values = [draw(size.kv_heads, stored) for _ in range(size.layers)]
        parts: Any = SimpleNamespace(num_layers=size.layers, layers=[])
        self.fixations = Fixations(parts, method, None)
        places = (torch.arange(size.visual) + size.text // 2).expand(batch, -1).contiguous()
        self.gaze = Gaze(None, places, [size.visual] * batch, stored)
        self.cache = SimpleNamespace()  # a plain layer: no history of cuts

    def dense(self) -> None:
        for key, value in zip(self.keys, self.values):
            dense_step(self.query, key, value, self.scaling)

    def sparse(self) -> None:
        """One step through the code that the hooks run."""
        self.gaze.trail.clear()
        for place, (key, value) in enumerate(zip(self.keys, self.values)):
            self.fixations.attend(self.gaze, place, self.cache, self.query, key, value, None, self.scaling)
