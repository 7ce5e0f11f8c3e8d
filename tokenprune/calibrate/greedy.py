"""Greedy nested search for the layers that look: a pure function of a cost, which knows no model.

After algorithm 1 of IndexCache (2026, arXiv:2603.12201), which searches for the layers that keep an
indexer: all of them look at first, and again and again the layer whose removal costs least stops looking. The sets
are nested, so that one search serves every count.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InputError

Focal = tuple[int, ...]
"""Layers that look, ascending."""
Cost = Callable[[Focal], float]
Quick = Callable[[Focal, float], float]
"""A cost that may give up and say infinity once it is surely above the second argument."""
RERANK = 4


@dataclass(frozen=True)
class Nested:
    """Nested sets of layers, by their size. Removal begins with all layers, addition ends with the largest set."""

    sets: dict[int, Focal]
    costs: dict[int, float]
    evaluations: int  # calls of the cost
    quick: int = 0  # calls of the quick one

    @property
    def order(self) -> Focal:
        """The layers in the order in which they leave the largest set; the smallest set is what is left."""
        sizes = sorted(self.sets, reverse=True)
        return tuple(
            layer
            for more, less in itertools.pairwise(sizes)
            for layer in sorted(set(self.sets[more]) - set(self.sets[less]))
        )


def longest_run(focal: Focal, num_layers: int) -> int:
    """The most layers in a row of which none looks."""
    edges = [-1, *focal, num_layers]
    return max(b - a - 1 for a, b in itertools.pairwise(edges))


def greedy_removal(
    num_layers: int,
    cost: Cost,
    *,
    quick: Quick | None = None,
    rerank: int = RERANK,
    fixed: Focal = (),
    max_run: int | None = None,
    tick: Callable[[int, int, str], None] | None = None,
) -> Nested:
    """Remove the layer whose removal costs least until one is left; of equal ones the lowest.

    quick: a cheaper cost, called with the value above which it need not be exact; where more than `rerank` removals
    are possible, only its `rerank` best are judged by `cost`.
    fixed: layers that stay. max_run: no more layers than that in a row without one that looks, both ends included;
    the search ends where no removal allows it. A NaN counts as the worst cost. Without `quick` and limits there are
    L (L + 1) / 2 evaluations. Raises `InputError` for numbers out of range.
    """
    judge = _Judge(num_layers, cost, quick, rerank)
    if any(not 0 <= layer < num_layers for layer in fixed):
        raise InputError(f"fixed={fixed}: this model has {num_layers} layers")
    if max_run is not None and max_run < 1:
        raise InputError(f"max_run={max_run}: at least 1")
    focal = tuple(range(num_layers))
    sets, costs = {num_layers: focal}, {num_layers: judge.cost(focal)}
    while len(focal) > 1:
        left = {layer: tuple(k for k in focal if k != layer) for layer in focal if layer not in fixed}
        if max_run is not None:
            left = {layer: rest for layer, rest in left.items() if longest_run(rest, num_layers) <= max_run}
        if not left:
            break
        focal, value = judge.best(left)
        sets[len(focal)], costs[len(focal)] = focal, value
        if tick is not None:
            tick(num_layers - len(focal), num_layers - 1, f"{len(focal)} focal layers")
    return Nested(sets, costs, judge.full, judge.quickly)


def greedy_addition(
    num_layers: int,
    cost: Cost,
    *,
    most: int | None = None,
    quick: Quick | None = None,
    rerank: int = RERANK,
    tick: Callable[[int, int, str], None] | None = None,
) -> Nested:
    """Add the layer that helps most until `most` look: fewer evaluations than removal for a few of many layers.

    It judges early layers by how they do nearly alone, which is why removal is the default elsewhere. Without `quick`
    there are most (2 L + 1 - most) / 2 evaluations.
    """
    judge = _Judge(num_layers, cost, quick, rerank)
    most = num_layers if most is None else most
    if not 1 <= most <= num_layers:
        raise InputError(f"most={most}: 1 to {num_layers} layers")
    focal: Focal = ()
    sets: dict[int, Focal] = {}
    costs: dict[int, float] = {}
    while len(focal) < most:
        options = {k: tuple(sorted((*focal, k))) for k in range(num_layers) if k not in focal}
        focal, value = judge.best(options)
        sets[len(focal)], costs[len(focal)] = focal, value
        if tick is not None:
            tick(len(focal), most, f"{len(focal)} focal layers")
    return Nested(sets, costs, judge.full, judge.quickly)


class _Judge:
    """Counts evaluations and finds the best of several sets."""

    def __init__(self, num_layers: int, cost: Cost, quick: Quick | None, rerank: int) -> None:
        if num_layers < 1:
            raise InputError(f"num_layers={num_layers}: at least 1")
        if rerank < 1:
            raise InputError(f"rerank={rerank}: at least 1")
        self._cost, self._quick, self._rerank = cost, quick, rerank
        self._before: dict[int, float] = {}
        self.full = self.quickly = 0

    def cost(self, focal: Focal) -> float:
        self.full += 1
        return _worst_if_nan(self._cost(focal))

    def best(self, options: dict[int, Focal]) -> tuple[Focal, float]:
        """The cheapest set and its cost, by the layer that is moved; of equal ones that of the lowest layer."""
        short = sorted(options)
        if self._quick is not None and len(options) > self._rerank:
            short = self._short_list(self._quick, options)
        value, layer = min((self.cost(options[layer]), layer) for layer in short)
        return options[layer], value

    def _short_list(self, quick: Quick, options: dict[int, Focal]) -> list[int]:
        """The `rerank` layers of least quick cost. Those that did well before come first, so that others give up."""
        guesses: list[tuple[float, int]] = []
        for layer in sorted(options, key=lambda k: (self._before.get(k, 0.0), k)):
            bound = sorted(guesses)[self._rerank - 1][0] if len(guesses) >= self._rerank else math.inf
            guesses.append((_worst_if_nan(quick(options[layer], bound)), layer))
        self.quickly += len(options)
        self._before = {layer: guess for guess, layer in guesses}
        return [layer for _, layer in sorted(guesses)[: self._rerank]]


def _worst_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value
