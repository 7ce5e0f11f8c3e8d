"""From `keep` to exact integer counts and schedules. Pure Python: nothing here needs torch."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

from .errors import BudgetError

KEEP_RANGE = "keep is a share in (0, 1] as a float, or a count >= 1 as an int"


def check_keep(keep: object) -> float | int:
    """Return `keep` as a plain float or int, or raise `BudgetError` naming the accepted range."""
    if isinstance(keep, bool) or not isinstance(keep, numbers.Real):
        raise BudgetError(f"keep={keep!r}: {KEEP_RANGE}")
    if isinstance(keep, numbers.Integral):
        if keep < 1:
            raise BudgetError(f"keep={keep!r}: {KEEP_RANGE}")
        return int(keep)
    value = float(keep)
    if not 0.0 < value <= 1.0:  # NaN fails too
        raise BudgetError(f"keep={keep!r}: {KEEP_RANGE}")
    return value


def count(keep: float | int, n: int) -> int:
    """Tokens kept of one image with `n`: a function of this image alone, never of its batch mates."""
    if isinstance(keep, int):
        return min(keep, n)
    return min(n, max(1, math.floor(keep * n + 0.5)))


def share_out(
    weights: Sequence[float], total: int, caps: Sequence[int] | None = None, least: int = 0
) -> list[int]:
    """Split `total` in proportion to `weights` by largest remainder, each part in [least, cap], summing exactly.

    Ties go to the lower index. Used inside one image only: frames, crops, cubes.
    """
    parts = len(weights)
    limit = list(caps) if caps is not None else [total] * parts
    out = [min(least, cap) for cap in limit]
    if not sum(out) <= total <= sum(limit):
        raise BudgetError(f"cannot share {total} over {parts} parts holding {sum(out)} to {sum(limit)}")
    open_parts = [i for i in range(parts) if out[i] < limit[i]]
    while (left := total - sum(out)) > 0:
        mass = sum(max(weights[i], 0.0) for i in open_parts)
        ideal = {
            i: left * (max(weights[i], 0.0) / mass if mass > 0 else 1 / len(open_parts)) for i in open_parts
        }
        full = [i for i in open_parts if ideal[i] >= limit[i] - out[i]]
        if full and len(full) < len(open_parts):  # fill these, share what is left over the others afresh
            for i in full:
                out[i] = limit[i]
            open_parts = [i for i in open_parts if i not in full]
            continue
        whole = {i: math.floor(ideal[i] + 1e-9) for i in open_parts}
        for i in open_parts:
            out[i] += whole[i]
        left = total - sum(out)
        for i in sorted(open_parts, key=lambda i: (whole[i] - ideal[i], i))[:left]:
            out[i] += 1
        break
    return out


def resolve_layer(layer: float | int, num_layers: int, upper: int | None = None) -> int:
    """A decoder layer index; a float is a share of the depth. `upper` is the first layer that cannot be cut at."""
    upper = num_layers if upper is None else upper
    ok = not isinstance(layer, bool) and isinstance(layer, numbers.Real)
    index = -1
    if ok:
        index = (
            int(layer) if isinstance(layer, numbers.Integral) else math.floor(float(layer) * num_layers + 0.5)
        )
        ok = 0 <= index < upper
    if not ok:
        raise BudgetError(
            f"layer={layer!r}: this model takes 0 to {upper - 1} (or a share of its {num_layers} layers)"
        )
    return index


def one_cut(
    keep: float | int, n: int, layer: int, num_layers: int, budget: str = "average"
) -> dict[int, int]:
    """Schedule of a method that cuts once at `layer`: {layer: tokens alive from it on}.

    budget="average": `keep` is the mean over all layers, so what survives the cut is fewer; a target below
    layer / num_layers of the tokens does not exist. budget="after": `keep` is what survives.
    """
    target = count(keep, n)
    if budget == "after" or layer == 0:
        return {layer: target}
    if budget != "average":
        raise BudgetError(f"budget={budget!r}: 'average' or 'after'")
    alive = math.floor((target * num_layers - layer * n) / (num_layers - layer) + 0.5)
    if alive < 1:
        floor = (layer * n + (num_layers - layer)) / num_layers
        raise BudgetError(
            f"keep={keep!r} asks for {target} of {n} tokens on layer average, but cutting at layer {layer} of "
            f"{num_layers} cannot go below {floor:.1f} ({floor / n:.1%}); use an earlier layer or budget='after'"
        )
    return {layer: min(alive, n)}


def layer_average(schedule: dict[int, int], n: int, num_layers: int) -> float:
    """Mean over layers of the tokens alive: what papers mean by "retain R"."""
    return sum(alive_at(schedule, n, k) for k in range(num_layers)) / num_layers


def alive_at(schedule: dict[int, int], n: int, layer: int) -> int:
    """Tokens alive in `layer` under {layer: tokens alive from it on}."""
    cuts = [k for k in schedule if k <= layer]
    return schedule[max(cuts)] if cuts else n
