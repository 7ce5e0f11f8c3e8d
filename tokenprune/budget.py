"""From `keep` to exact integer counts and schedules. Pure Python: nothing here needs torch."""

from __future__ import annotations

import functools
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


def check_floor(keep: float | int, n: int, floor: float, why: str) -> None:
    """Refuse a `keep` below the fewest tokens of n that a method knows how to leave; `why` opens the message."""
    target = count(keep, n)
    if target < floor:
        raise BudgetError(
            f"{why}: keep={keep!r} asks for {target} of {n}, the floor is {floor:.1f} ({floor / n:.1%})"
        )


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
    ok = not isinstance(layer, bool) and isinstance(layer, numbers.Real) and math.isfinite(layer)
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


def check_layer(layer: object, name: str = "layer") -> float | int:
    """`layer` of a method that reads what the layer before has computed: an int >= 1, or a share in (0, 1)."""
    if isinstance(layer, numbers.Integral):
        if not isinstance(layer, bool) and int(layer) >= 1:
            return int(layer)
    elif isinstance(layer, numbers.Real) and 0.0 < float(layer) < 1.0:
        return float(layer)
    raise BudgetError(f"{name}={layer!r}: a decoder layer >= 1 as an int, or a share of the depth in (0, 1)")


def check_layers(layers: object) -> tuple[float | int, ...]:
    """The same for several cuts, as a tuple."""
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise BudgetError(f"layers={layers!r}: a list of decoder layers or shares of the depth")
    return tuple(check_layer(layer, "layers") for layer in layers)


def check_budget(budget: object) -> None:
    """`budget` of a method that cuts inside the language model."""
    if budget not in ("average", "after"):
        raise BudgetError(f"budget={budget!r}: 'average' or 'after'")


def check_number(name: str, value: object, low: float, high: float, whole: bool = False) -> None:
    """A hyper-parameter that is a number in [low, high], an int where `whole`; NaN and bool are none."""
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise BudgetError(f"{name}={value!r}: {'an int' if whole else 'a number'} from {low} to {high}")


def check_ratio(ratio: object) -> float | None:
    """`ratio` of a method with several cuts: a share in (0, 1], or None."""
    fits = isinstance(ratio, numbers.Real) and not isinstance(ratio, bool) and 0.0 < float(ratio) <= 1.0
    if ratio is not None and not fits:
        raise BudgetError(f"ratio={ratio!r}: a share in (0, 1], or None")
    return None if ratio is None else float(ratio)  # type: ignore[arg-type]


def cut_layers(layers: Sequence[float | int], num_layers: int) -> tuple[int, ...]:
    """Layers to cut at, ascending; a share that rounds to 0 means 1, as layer 0 has no layer before it."""
    return tuple(sorted({resolve_layer(max(resolve_layer(k, num_layers), 1), num_layers) for k in layers}))


def layer_floor(n: int, layer: int, num_layers: int) -> float:
    """Fewest tokens on layer average when the first cut is at `layer`: all before it, one from it on."""
    return (layer * n + (num_layers - layer)) / num_layers


def many_cuts(
    keep: float | int,
    n: int,
    layers: Sequence[int],
    num_layers: int,
    budget: str = "average",
    ratio: float | None = None,
) -> dict[int, int]:
    """Schedule of a method that cuts at several `layers`, ascending: {layer: tokens alive from it on}.

    One number x in [0, 1], the share alive after the last of m cuts, sets them all. ratio=None: every cut keeps the
    same share of what reaches it, so cut i leaves n x^(i / m). A `ratio`: later cuts keep that share of what the
    one before left, so cut i leaves n min(1, x ratio^(i - m)). Counts are rounded to nearest, at least 1.

    budget="average": x is the one whose counts come nearest to `keep` on layer average. budget="after": x is `keep`.
    """
    check_budget(budget)
    alive = _solved(keep, n, tuple(layers), num_layers, budget, ratio)
    return dict(zip(layers, alive))


@functools.lru_cache(maxsize=4096, typed=True)  # asked at every cut of every image; 1 is a token, 1.0 is all of them
def _solved(
    keep: float | int, n: int, layers: tuple[int, ...], num_layers: int, budget: str, ratio: float | None
) -> list[int]:
    target, m = count(keep, n), len(layers)
    weights = [b - a for a, b in zip(layers, [*layers[1:], num_layers])]

    def counts(x: float) -> list[int]:
        shares = [x ** (i / m) if ratio is None else x * ratio ** (i - m) for i in range(1, m + 1)]
        return [min(n, max(1, math.floor(min(share, 1.0) * n + 0.5))) for share in shares]

    def total(x: float) -> int:
        return sum(w * c for w, c in zip(weights, counts(x)))

    if budget == "after":
        return [*counts(target / n)[:-1], target]
    wanted = target * num_layers - layers[0] * n
    if 2 * wanted < sum(weights):  # rounds to less than one token
        floor = layer_floor(n, layers[0], num_layers)
        raise BudgetError(
            f"keep={keep!r} asks for {target} of {n} tokens on layer average, but with a first cut at layer "
            f"{layers[0]} of {num_layers} there is nothing below {floor:.1f} ({floor / n:.1%}); cut earlier or use "
            "budget='after'"
        )
    low, high = 0.0, 1.0
    # total(low) <= wanted <= total(high), down to neighbouring floats
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if total(middle) <= wanted else (low, middle)
    best = low if wanted - total(low) < total(high) - wanted else high
    return counts(best)


def layer_average(schedule: dict[int, int], n: int, num_layers: int) -> float:
    """Mean over layers of the tokens alive: what papers mean by "retain R"."""
    return sum(alive_at(schedule, n, k) for k in range(num_layers)) / num_layers


def alive_at(schedule: dict[int, int], n: int, layer: int) -> int:
    """Tokens alive in `layer` under {layer: tokens alive from it on}."""
    cuts = [k for k in schedule if k <= layer]
    return schedule[max(cuts)] if cuts else n
