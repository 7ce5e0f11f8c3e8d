"""Bootstrap intervals that resample whole groups of samples: the questions of one image or video are not independent.

Percentile intervals throughout (Efron and Tibshirani 1993, chapter 13), their ends being two of the resampled values.
Groups are taken in the order of their labels, so shuffled samples give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError

Groups = Sequence[Hashable] | np.ndarray | None  # one label per sample
_BLOCK = 1 << 21  # group numbers drawn at a time: 16 MiB, whatever the number of groups and resamples


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval, all three in the unit of the scores; `level` is its coverage."""

    value: float
    low: float
    high: float
    level: float = 0.95


def scores(name: str, values: ArrayLike) -> np.ndarray:
    """`values` as a float64 array (n,), n >= 1, all finite, or `InputError` that begins with `name`."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{name}: one score per sample is needed, and at least one, not shape {array.shape}")
    if not np.isfinite(array).all():
        where = int(np.argmin(np.isfinite(array)))
        raise InputError(
            f"{name}: sample {where} of {array.size} has the score {array[where]}; leave it out or fix it"
        )
    return array


def pair(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two score arrays of the same samples in the same order, both (n,); `InputError` where they cannot be."""
    first, second = scores("a", a), scores("b", b)
    if first.size != second.size:
        raise InputError(f"paired scores need the same samples: a has {first.size}, b has {second.size}")
    return first, second


def group_codes(groups: Groups, n: int) -> tuple[np.ndarray, int]:
    """The group of each of n samples as a number (n,), counted along the sorted labels, and the number of groups.

    Without `groups` every sample is its own. Labels that cannot be compared are sorted by their `repr`.
    """
    if groups is None:
        return np.arange(n), n
    labels: list[Any] = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
    if len(labels) != n:
        raise InputError(f"one group label per sample is needed: {len(labels)} labels for {n} samples")
    try:
        ordered = sorted(set(labels))
    except TypeError:
        ordered = sorted(set(labels), key=repr)
    number = {label: k for k, label in enumerate(ordered)}
    return np.array([number[label] for label in labels]), len(ordered)


def _check(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise InputError(f"resamples={resamples!r} must be at least 1, level={level!r} between 0 and 1")


def _draws(groups: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks (r, groups) of group numbers drawn with replacement, `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // groups)
    for start in range(0, resamples, rows):
        yield rng.integers(0, groups, size=(min(rows, resamples - start), groups))


def _sums(columns: Sequence[np.ndarray], resamples: int, seed: int) -> np.ndarray:
    """Sums over resampled groups, (k, resamples), of k columns with one entry per group."""
    blocks = [
        [column[drawn].sum(axis=1) for column in columns]
        for drawn in _draws(columns[0].size, resamples, seed)
    ]
    return np.concatenate(blocks, axis=1)


def _interval(value: float, drawn: np.ndarray, level: float) -> Interval:
    # Two of the drawn values, not an interpolation, so that swapping the runs turns the interval round exactly
    # and an infinite draw stays infinite.
    outside = math.floor((1 - level) / 2 * (drawn.size - 1) + 1e-9)
    ends = (outside, drawn.size - 1 - outside)
    ordered = np.partition(drawn, ends)
    return Interval(float(value), float(ordered[ends[0]]), float(ordered[ends[1]]), level)


def mean_interval(
    a: ArrayLike,
    groups: Groups = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean of the scores a (n,) with its bootstrap interval over `groups`, one label per sample.

    A resample draws as many groups as there are, with replacement, and takes the mean over all their samples.
    `InputError` for NaN, an empty array or labels of another length.
    """
    _check(resamples, level)
    array = scores("scores", a)
    codes, count = group_codes(groups, array.size)
    sizes = np.bincount(codes, minlength=count)
    sums, members = _sums([np.bincount(codes, array, count), sizes], resamples, seed)
    return _interval(array.mean(), sums / members, level)


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    groups: Groups = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """mean(b) - mean(a) with its bootstrap interval: what b, the pruned run, gains over a.

    a and b hold the scores (n,) of the same samples; each resample takes both scores of the samples drawn. The rest
    as for `mean_interval`.
    """
    first, second = pair(a, b)
    return mean_interval(second - first, groups, resamples=resamples, seed=seed, level=level)


def ratio_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    groups: Groups = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """mean(b) / mean(a) with its bootstrap interval: the share of a's score that b retains.

    Arguments as for `paired_bootstrap`. A resample in which a scores 0 counts as an infinite share, so with few right
    answers `high` can be infinite. `InputError` if a scores 0 throughout or a score is negative.
    """
    _check(resamples, level)
    first, second = pair(a, b)
    if min(first.min(), second.min()) < 0 or not first.any():
        raise InputError("a retained share needs scores of 0 and more, and an a that is not 0 throughout")
    codes, count = group_codes(groups, first.size)
    columns = [np.bincount(codes, column, count) for column in (first, second)]
    below, above = _sums(columns, resamples, seed)
    shares = np.divide(above, below, out=np.full_like(above, np.inf), where=below > 0)
    return _interval(second.sum() / first.sum(), shares, level)


def bootstrap_all(
    statistic: Callable[[np.ndarray], dict[str, float]],
    n: int,
    groups: Groups = None,
    *,
    resamples: int = 1_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """As `bootstrap`, of several statistics of the same draws, by name.

    A name that a draw does not have, a category without a sample, is left out of that draw; the value of every name
    is that of the whole. `statistic` is called resamples + 1 times.
    """
    _check(resamples, level)
    if n < 1:
        raise InputError(f"a bootstrap needs at least one sample, not {n}")
    whole = statistic(np.arange(n))
    rows, count = _members(groups, n)
    drawn = [statistic(rows(numbers)) for block in _draws(count, resamples, seed) for numbers in block]
    found = {name: np.array([one[name] for one in drawn if name in one]) for name in whole}
    return {name: _interval(value, found[name], level) for name, value in whole.items() if found[name].size}


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    n: int,
    groups: Groups = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Any statistic of n samples with its bootstrap interval over groups: F1, mAP, MME, or a difference of two.

    `statistic` is given an integer array of sample numbers in [0, n), those drawn more than once repeated, and returns
    a float. It is called resamples + 1 times, so prepare what it needs before. `InputError` if it returns NaN.
    """
    _check(resamples, level)
    if n < 1:
        raise InputError(f"a bootstrap needs at least one sample, not {n}")
    rows, count = _members(groups, n)
    value = statistic(np.arange(n))
    found = np.array([statistic(rows(drawn)) for block in _draws(count, resamples, seed) for drawn in block])
    if np.isnan(value) or np.isnan(found).any():
        raise InputError(
            f"the statistic is NaN for the samples or one of {resamples} resamples of {count} groups"
        )
    return _interval(value, found, level)


def _members(groups: Groups, n: int) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """A function from group numbers to the numbers of all their samples, and how many groups there are."""
    codes, count = group_codes(groups, n)
    members = np.argsort(codes, kind="stable")  # samples, group by group
    sizes = np.bincount(codes, minlength=count)
    starts = np.cumsum(sizes) - sizes

    def rows(drawn: np.ndarray) -> np.ndarray:
        taken = sizes[drawn]
        ends = np.cumsum(taken)
        return members[np.repeat(starts[drawn] - (ends - taken), taken) + np.arange(ends[-1])]

    return rows, count
