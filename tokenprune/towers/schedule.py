"""How many tokens each block merges. Pure Python: nothing here needs torch."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass

from ..budget import check_keep, count, resolve_layer
from ..errors import BudgetError


@dataclass(frozen=True)
class Schedule:
    """Either `r` tokens in each of the chosen blocks, or as many as leave `keep` at the end."""

    depth: int
    layers: tuple[int, ...]  # ascending
    r: tuple[int, ...] | None = None  # one for each of `layers`
    keep: float | int | None = None

    @classmethod
    def of(cls, depth: int, r: object, keep: object, layers: object) -> Schedule:
        """From what a user gives; `BudgetError` names the range."""
        if (r is None) == (keep is None):
            raise BudgetError(
                "give either r, tokens merged in each block, or keep, the share left at the end"
            )
        chosen = _layers(layers, depth)
        if keep is not None:
            return cls(depth, chosen, keep=check_keep(keep))
        each = list(r) if isinstance(r, Sequence) and not isinstance(r, str) else [r] * len(chosen)
        if len(each) != len(chosen) or not all(_whole(value) for value in each):
            raise BudgetError(
                f"r={r!r}: an int >= 0, or a list of {len(chosen)} of them, one for each block that merges"
            )
        return cls(depth, chosen, r=tuple(int(value) for value in each))

    def counts(self, n: int) -> tuple[int, ...]:
        """Of a picture with n patches: how many are left after each of the `depth` blocks."""
        if self.keep is not None:
            left = _by_keep(self.keep, n, self.layers)
        else:
            left = _by_r(self.r or (), n, self.layers)
        after, out = dict(zip(self.layers, left)), []
        for block in range(self.depth):
            out.append(after.get(block, out[-1] if out else n))
        return tuple(out)


def _whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 0


def _layers(layers: object, depth: int) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(depth))
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise BudgetError(
            f"layers={layers!r}: a list of blocks from 0 to {depth - 1}, or of shares of the depth"
        )
    return tuple(sorted({resolve_layer(layer, depth) for layer in layers}))


def _by_r(r: tuple[int, ...], n: int, layers: tuple[int, ...]) -> list[int]:
    left = [n]
    for layer, here in zip(layers, r):
        if here > left[-1] // 2:
            raise BudgetError(
                f"r={here}: block {layer} has {left[-1]} of {n} patches left and merges at most half of them, "
                f"{left[-1] // 2}; the same r in all {len(layers)} blocks can be {n // (len(layers) + 1)}"
            )
        left.append(left[-1] - here)
    return left[1:]


def _by_keep(keep: float | int, n: int, layers: tuple[int, ...]) -> list[int]:
    """Evenly from n down to the target; where half of the tokens is not enough, the blocks before take more."""
    target, depth = count(keep, n), len(layers)
    left = [n - (i + 1) * (n - target) // depth for i in range(depth)]
    for i in reversed(range(depth - 1)):
        left[i] = min(left[i], 2 * left[i + 1])
    if n > 2 * left[0]:
        floor = -(-n // 2**depth)
        raise BudgetError(
            f"keep={keep!r} asks for {target} of {n} patches, but {depth} blocks that merge at most half each leave "
            f"{floor} ({floor / n:.1%}); name more layers"
        )
    return left
