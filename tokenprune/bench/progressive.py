"""What `progressive` costs: a clip of 32 frames, and a long one with a window against its own matrix products.

The products are the least any farthest-first choice against that memory must do: every frame with the tokens
remembered, and with itself. Frames of a long clip must not grow dearer: the same number of them is timed early and
late, as the difference of clips of several lengths.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import TokenPruneError
from ..kernels.progress import even_counts
from ..methods import get_method
from ..tokens import VisualTokens
from .result import Line
from .sizes import Size
from .timer import Ratio, quiet, rounds

SHORT, LONG, WINDOW, STEP = 32, 256, 16, 64  # frames
SECONDS = 0.15  # what 32 frames may take


@torch.no_grad()
def measure(
    size: Size,
    count: int,
    *,
    tick: Callable[[int, int, str], None] | None = None,
    short: int = SHORT,
    step: int = STEP,
    window: int = WINDOW,
) -> list[Line]:
    """`count` rounds of both clips, of their products and of clips of 1, 2, 3 and 4 times `step` frames."""
    g = torch.Generator().manual_seed(0)
    tokens, goals = torch.randn(1, 4 * step * size.visual, size.hidden, generator=g), dict(size.goals)
    variants: dict[str, Callable[[], None]] = {
        "short": functools.partial(choose, tokens, size, short, None),
        "short again": functools.partial(choose, tokens, size, short, None),
        "adaptive": functools.partial(choose, tokens, size, short, None, "adaptive"),
        "short products": functools.partial(products, tokens, size, short, None),
        "long products": functools.partial(products, tokens, size, 4 * step, window),
    }
    variants |= {
        f"{i * step}": functools.partial(choose, tokens, size, i * step, window) for i in (1, 2, 3, 4)
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    with quiet():
        for run in variants.values():
            run()
        for done, taken in enumerate(rounds(variants, count)):
            for name, seconds in taken.items():
                times[name].append(seconds)
            if tick is not None:
                tick(done + 1, count, size.name)
    ends = [times[f"{i * step}"] for i in (1, 2, 3, 4)]
    first, *_, last = ([b - a for a, b in zip(one, two)] for one, two in itertools.pairwise(ends))
    windowed = f"{4 * step} frames, window {window}"

    def line(what: str, base: str, a: list[float], b: list[float], goal: str = "") -> Line:
        return Line.judged(size.name, what, base, Ratio.of(a, b), goals, goal)

    limit = [SECONDS] * count
    return [
        line(f"{short} frames", f"{SECONDS} s", times["short"], limit, "short"),
        line(f"{short} frames again", f"{short} frames", times["short again"], times["short"]),
        line(f"{short} frames, adaptive", f"{SECONDS} s", times["adaptive"], limit),
        line(f"{short} frames", "its matrix products", times["short"], times["short products"]),
        line(windowed, "its matrix products", ends[-1], times["long products"], "long"),
        line(f"frames {3 * step} to {4 * step}", f"frames {step} to {2 * step}", last, first, "late"),
    ]


def choose(tokens: Tensor, size: Size, frames: int, window: int | None, budget: str = "fixed") -> None:
    """The method, on the first `frames` frames."""
    n = frames * size.visual
    clip = VisualTokens(tokens[:, :n], (frames, size.grid, size.grid), "video")
    method = get_method("progressive", keep=size.keep, window=window, budget=budget, absorb=False)
    wanted = method.num_kept(n) or 0
    if int(method.select(clip, wanted).keep.sum()) != wanted:
        raise TokenPruneError(f"bench progressive: {frames} frames did not keep {wanted} tokens")


def products(tokens: Tensor, size: Size, frames: int, window: int | None) -> None:
    """The same clip's products alone: frame by memory, frame by frame."""
    n = frames * size.visual
    x = tokens[:, :n].unflatten(1, (frames, size.visual))
    counts = even_counts(get_method("progressive", keep=size.keep).num_kept(n) or 0, frames)
    for t in range(frames):
        here, recent = x[:, t], sum(counts[0 if window is None else max(0, t - window) : t])
        torch.bmm(here, here.transpose(1, 2))
        if recent:
            torch.bmm(here, tokens[:, :recent].transpose(1, 2))
