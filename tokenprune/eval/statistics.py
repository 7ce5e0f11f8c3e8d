"""Whether a pruned run differs from the unpruned one: tests, error bars and verdicts on paired scores.

Everywhere a is the unpruned run, b the pruned one, and a difference is b - a. The bootstrap is in `bootstrap`, broken
outputs in `degenerate`; both can be had from here too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError, MissingExtraError
from .bootstrap import (
    Groups,
    Interval,
    bootstrap,
    group_codes,
    mean_interval,
    pair,
    paired_bootstrap,
    ratio_bootstrap,
    scores,
)
from .degenerate import degenerate, degenerate_rates
from .metrics.text import plain

__all__ = [
    "Flips",
    "Interval",
    "McNemar",
    "TTest",
    "Verdict",
    "agreement",
    "bootstrap",
    "clustered_stderr",
    "degenerate",
    "degenerate_rates",
    "flips",
    "holm",
    "mcnemar",
    "mean_interval",
    "minimum_detectable_difference",
    "non_inferior",
    "paired_bootstrap",
    "paired_ttest",
    "ratio_bootstrap",
    "relative_score",
]

Verdict = Literal["non-inferior", "inferior", "undecided"]


@dataclass(frozen=True)
class Flips:
    """Samples that changed sides: `lost` went from right to wrong, `gained` from wrong to right."""

    lost: int
    gained: int


@dataclass(frozen=True)
class McNemar:
    """`gained` samples went from wrong to right and `lost` the other way; p for both being equally likely."""

    gained: int
    lost: int
    p: float


@dataclass(frozen=True)
class TTest:
    """Mean difference b - a with its t interval, its standard error, and the two-sided test against 0."""

    difference: Interval
    stderr: float
    t: float
    p: float


def flips(a: ArrayLike, b: ArrayLike, *, right: float = 0.5) -> Flips:
    """Samples that went from right to wrong and back between a and b (n,), a score of at least `right` being right."""
    first, second = (column >= right for column in pair(a, b))
    return Flips(lost=int(np.sum(first & ~second)), gained=int(np.sum(~first & second)))


def mcnemar(a: ArrayLike, b: ArrayLike) -> McNemar:
    """McNemar's test (1947) in its exact form, two-sided binomial, for scores a and b (n,) of 0 and 1 only.

    It takes the samples as independent: with several questions per image look at the bootstrap over images.
    """
    first, second = pair(a, b)
    if not np.isin(np.concatenate([first, second]), (0, 1)).all():
        raise InputError(
            "McNemar's test takes scores of 0 and 1; for graded ones use paired_ttest or paired_bootstrap"
        )
    changed = flips(first, second)
    n, fewer = changed.lost + changed.gained, min(changed.lost, changed.gained)
    term = tail = 1  # C(n, k) and their sum: integers, so the p of any n is exact
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        tail += term
    return McNemar(changed.gained, changed.lost, p=min(1.0, 2 * tail / 2**n))


def paired_ttest(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> TTest:
    """Student's paired t-test of mean(b) - mean(a), for scores (n,) of the same n >= 2 samples.

    Samples count as independent. Without any spread t is 0 and p 1 if the runs are equal, else t is infinite and p 0.
    """
    try:
        from scipy.stats import t as student
    except ImportError as error:
        raise MissingExtraError.of("scipy", "eval") from error
    first, second = pair(a, b)
    n = first.size
    if n < 2 or not 0 < level < 1:
        raise InputError(f"a t-test needs two samples or more, not {n}, and 0 < level={level!r} < 1")
    difference = second - first
    mean = float(difference.mean())
    stderr = 0.0 if np.ptp(difference) == 0 else float(difference.std(ddof=1)) / math.sqrt(n)
    t = mean / stderr if stderr else math.copysign(math.inf, mean) if mean else 0.0
    half = float(student.ppf((1 + level) / 2, n - 1)) * stderr
    p = float(2 * student.sf(abs(t), n - 1))
    return TTest(Interval(mean, mean - half, mean + half, level), stderr, t, p)


def clustered_stderr(a: ArrayLike, clusters: Groups) -> float:
    """Standard error of the mean of a (n,) when samples of one cluster go together (Miller 2024, section 2.2).

    The usual variance s^2 / n plus the products of deviations of all pairs within a cluster over n^2.
    """
    array = scores("scores", a)
    n = array.size
    if n < 2:
        raise InputError("a standard error needs two samples or more")
    codes, count = group_codes(clusters, n)
    deviation = array - array.mean()
    squares = float(np.sum(deviation**2))
    within = float(np.sum(np.bincount(codes, deviation, count) ** 2)) - squares
    return math.sqrt(max(0.0, squares / (n * (n - 1)) + within / n**2))


def agreement(texts_a: Sequence[str], texts_b: Sequence[str]) -> float:
    """Share of samples whose two outputs are the same answer as metric `exact` compares them, right or wrong."""
    if not texts_a or len(texts_a) != len(texts_b):
        raise InputError(f"agreement needs the same samples: {len(texts_a)} and {len(texts_b)} outputs")
    return sum(plain(a) == plain(b) for a, b in zip(texts_a, texts_b)) / len(texts_a)


def relative_score(pruned: Mapping[str, float], unpruned: Mapping[str, float]) -> float:
    """Mean over benchmarks of pruned / unpruned, the "relative accuracy" of pruning papers; 1 means nothing lost.

    Both map a benchmark's name to its score, in any unit, the same benchmarks in both. `InputError` names those that
    one side lacks or whose unpruned score is 0.
    """
    if lacking := sorted(pruned.keys() ^ unpruned.keys()):
        raise InputError(
            f"a relative score needs both runs on every benchmark; one lacks {', '.join(lacking)}"
        )
    if not unpruned:
        raise InputError("a relative score needs at least one benchmark")
    if broken := sorted(
        k for k in unpruned if not math.isfinite(pruned[k]) or not math.isfinite(unpruned[k])
    ):
        raise InputError(f"no finite score in {', '.join(broken)}")
    if zero := sorted(name for name, score in unpruned.items() if score == 0):
        raise InputError(f"nothing is relative to an unpruned score of 0: {', '.join(zero)}; leave them out")
    return math.fsum(pruned[name] / unpruned[name] for name in unpruned) / len(unpruned)


def holm(pvalues: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm (1979), in the order given: compare them with alpha itself."""
    if not all(0 <= p <= 1 for p in pvalues):  # NaN fails too
        raise InputError(f"p-values lie in [0, 1]: {list(pvalues)}")
    adjusted, largest, m = [0.0] * len(pvalues), 0.0, len(pvalues)
    for rank, i in enumerate(sorted(range(m), key=lambda i: pvalues[i])):
        largest = max(largest, min(1.0, (m - rank) * pvalues[i]))
        adjusted[i] = float(largest)
    return adjusted


def minimum_detectable_difference(
    n: int, discordant_share: float, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The least true difference of two accuracies that n paired 0/1 samples would show, at two-sided `alpha`.

    d solves d sqrt(n) = z(1 - alpha/2) sqrt(s) + z(power) sqrt(s - d^2), Connor's (1987) sample size of McNemar's
    test, where s is the share of samples that flip either way. No difference can exceed s; where d would have to,
    the samples are too few whatever the difference, and the result is infinite.
    """
    if n < 1 or not 0 <= discordant_share <= 1 or not 0.5 <= power < 1 or not 0 < alpha < 1:
        raise InputError(
            f"n={n!r} must be at least 1, discordant_share={discordant_share!r} in [0, 1], power={power!r} in "
            f"[0.5, 1), alpha={alpha!r} in (0, 1)"
        )
    s, z = discordant_share, NormalDist().inv_cdf
    za, zb = z(1 - alpha / 2), z(power)
    # squared, the equation is (n + zb^2) d^2 - 2 za sqrt(n s) d + (za^2 - zb^2) s = 0; the larger root solves it
    if n < za * za:  # then both roots are of the squared equation only
        return math.inf
    d = math.sqrt(s) * (za * math.sqrt(n) + zb * math.sqrt(n - za * za + zb * zb)) / (n + zb * zb)
    return d if 0 < d <= s else math.inf


def non_inferior(interval: Interval, margin: float) -> Verdict:
    """Whether b is at most `margin` worse than a, by the interval of b - a; margin > 0 and in its unit.

    "non-inferior" if the whole interval lies above -margin, "inferior" if it lies below, else "undecided": too few
    samples to say. An interval of 95 % makes it a one-sided test at 2.5 %.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise InputError(f"margin={margin!r}: how much worse is still acceptable, a number above 0")
    if interval.low > -margin:
        return "non-inferior"
    return "inferior" if interval.high < -margin else "undecided"
