"""What the entropy score of EntropyPrune costs: heads by heads against width by width, and against a projection.

Both are the spectrum of one covariance, so the same solver on the smaller matrix is a fair comparison; the pair in
float64 is the released code's precision. What the score is worth in a model is its share of one layer's query, key
and value projection of the same tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import TokenPruneError
from ..kernels.entropy import matrix_entropy
from .result import Line, Verdict
from .sizes import Size
from .timer import Ratio, quiet
from .timer import rounds as interleaved


@torch.no_grad()
def measure(size: Size, count: int, *, tick: Callable[[int, int, str], None] | None = None) -> list[Line]:
    """`count` rounds of every variant in an order drawn anew each round; one line a comparison."""
    name, n, heads, width = size.name, size.visual, size.heads, size.hidden // size.heads
    goals = dict(size.goals)
    g = torch.Generator().manual_seed(0)
    hidden = heads * width
    common = torch.randn(n, heads, 6, generator=g) @ torch.randn(6, width, generator=g)
    q = (0.3 * common + torch.randn(n, heads, width, generator=g)).transpose(0, 1)[
        None
    ]  # as a model lays it out
    states = torch.randn(n, hidden, generator=g)
    weight = torch.randn(3 * hidden, hidden, generator=g)
    variants: dict[str, Callable[[], Tensor]] = {
        "heads": functools.partial(matrix_entropy, q),
        "width": functools.partial(_direct, q, torch.float32, True),
        "heads64": functools.partial(_direct, q, torch.float64, False),
        "width64": functools.partial(_direct, q, torch.float64, True),
        "chebyshev": functools.partial(matrix_entropy, q, solver="chebyshev"),
        "projection": functools.partial(torch.nn.functional.linear, states, weight),
    }
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    with quiet():
        answers = {variant: run() for variant, run in variants.items()}  # once unmeasured
        _check(answers)
        for done, taken in enumerate(interleaved({v: _drop(run) for v, run in variants.items()}, count)):
            for variant, seconds in taken.items():
                times[variant].append(seconds)
            if tick is not None:
                tick(done + 1, count, name)

    def line(what: str, base_name: str, a: str, b: str, goal: str = "") -> Line:
        ratio = Ratio.of(times[a], times[b])
        if not goal:
            return Line(name, what, base_name, ratio, Verdict.INFO)
        return Line.judged(name, what, base_name, ratio, goals, goal)

    return [
        line("heads x heads, fp32", "width x width, fp32", "heads", "width", "heads x heads"),
        line("heads x heads, fp64", "width x width, fp64", "heads64", "width64"),
        line("heads x heads, fp32", "width x width, fp64", "heads", "width64"),
        line("polynomial, fp32", "width x width, fp32", "chebyshev", "width"),
        line("polynomial, fp32", "heads x heads, fp32", "chebyshev", "heads"),
        line("heads x heads, fp32", "q, k, v projection, fp32", "heads", "projection", "share of q, k, v"),
        line("polynomial, fp32", "q, k, v projection, fp32", "chebyshev", "projection"),
    ]


def _direct(q: Tensor, dtype: torch.dtype, by_width: bool) -> Tensor:
    """The formula as it stands, in one go: (1, H, N, d) -> (1, N)."""
    x = q[0].transpose(0, 1).to(dtype)
    x = x - x.mean(1, keepdim=True)
    x = x / x.norm(dim=2, keepdim=True)
    square = x.transpose(1, 2) @ x if by_width else x @ x.transpose(1, 2)
    sigma = torch.linalg.eigvalsh(square / x.shape[1]).clamp_min(1e-10)
    return -(sigma * sigma.log()).sum(1)[None]


def _drop(run: Callable[[], Tensor]) -> Callable[[], None]:
    def call() -> None:
        run()

    return call


def _check(answers: dict[str, Tensor]) -> None:
    """All score alike, or the times compare different things."""
    exact = answers["width64"]
    for variant, most in (("heads", 1e-4), ("width", 1e-4), ("heads64", 1e-6), ("chebyshev", 2e-2)):
        error = float((answers[variant] - exact).abs().max())
        if not error <= most:
            raise TokenPruneError(f"bench entropy: {variant} is off by {error:.1e}")
