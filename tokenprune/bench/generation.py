"""The clock around one `generate`: to the first token, between tokens, and what the tower takes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .timer import clock_for

DECODED = 5
"""Tokens generated when timing; the first comes out of the prefill, the others are decode steps."""


@dataclass(frozen=True)
class Times:
    """Seconds of one `generate`."""

    prefill: float  # from the call to the first token: tower, selection and prompt
    decode: float  # mean gap between tokens after the first
    vision: float = 0.0  # of the prefill, in the tower
    total: float = 0.0


class _Stamps:
    """A streamer that writes down when each token came."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.times = clock, []

    def put(self, value: Any) -> None:
        self.times.append(self.clock())

    def end(self) -> None:
        pass


@torch.no_grad()
def time_generation(
    model: Any, inputs: dict[str, Any], *, tokens: int = DECODED, tower: nn.Module | None = None
) -> Times:
    """Time one greedy `generate` of exactly `tokens` new tokens; end tokens are ignored."""
    clock, _ = clock_for(model.device, torch.get_num_threads())
    stamps = _Stamps(clock)
    with watched(tower, clock) as spent:
        start = clock()
        model.generate(
            **inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, streamer=stamps
        )
    made = stamps.times[1:]  # the first stamp is the prompt's
    gaps = max(len(made) - 1, 1)
    return Times(made[0] - start, (made[-1] - made[0]) / gaps, sum(spent), made[-1] - start)


@contextlib.contextmanager
def watched(module: nn.Module | None, clock: Callable[[], float]) -> Iterator[list[float]]:
    """Collects the seconds of every call of `module` inside the block."""
    spent: list[float] = []
    if module is None:
        yield spent
        return
    began: list[float] = []
    before = module.register_forward_pre_hook(lambda *_: began.append(clock()))
    after = module.register_forward_hook(lambda *_: spent.append(clock() - began.pop()))
    try:
        yield spent
    finally:
        before.remove()
        after.remove()


def timed(function: Callable[..., Any], clock: Callable[[], float], spent: list[float]) -> Callable[..., Any]:
    """`function`, with the seconds of every call put behind `spent`."""

    def run(*args: Any, **kwargs: Any) -> Any:
        start = clock()
        answer = function(*args, **kwargs)
        spent.append(clock() - start)
        return answer

    return run
