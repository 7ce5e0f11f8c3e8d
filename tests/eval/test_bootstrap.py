"""Bootstrap intervals against a slow one, against their coverage, and against what they promise."""

from __future__ import annotations

import math
import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.errors import InputError
from tokenprune.eval import bootstrap as room
from tokenprune.eval.bootstrap import Interval, bootstrap, mean_interval, paired_bootstrap, ratio_bootstrap

quick = settings(max_examples=60, deadline=None, derandomize=True)
score = st.floats(0, 1, allow_subnormal=False)
samples = st.lists(st.tuples(score, score, st.integers(0, 4)), min_size=1, max_size=20)
FEW = 200


def near(interval):
    return pytest.approx(interval, abs=1e-12, rel=1e-9)


def ends(interval):
    return interval.value, interval.low, interval.high


def slow(statistic, rows, labels, resamples, seed, level):
    """A group bootstrap in plain Python, on the same draws: every group's rows are gathered, nothing is summed up."""
    members = defaultdict(list)
    for row, label in zip(rows, labels):
        members[label].append(row)
    groups = [members[label] for label in sorted(members)]
    drawn = np.random.default_rng(seed).integers(0, len(groups), size=(resamples, len(groups)))
    found = sorted(statistic([row for g in numbers for row in groups[g]]) for numbers in drawn.tolist())
    skip = int((1 - level) / 2 * (resamples - 1))
    return statistic(rows), found[skip], found[-1 - skip]


def mean(values):
    return math.fsum(values) / len(values)


@quick
@given(samples, st.integers(0, 3), st.sampled_from([0.5, 0.9, 0.95]))
def test_against_a_slow_one(found, seed, level):
    a, b, labels = (list(column) for column in zip(*found))
    more = {"resamples": FEW, "seed": seed, "level": level}

    def gain(rows):
        return mean([y - x for x, y in rows])

    expected = slow(gain, list(zip(a, b)), labels, **more)
    assert ends(paired_bootstrap(a, b, labels, **more)) == near(expected)
    assert ends(mean_interval(a, labels, **more)) == near(slow(mean, a, labels, **more))
    x, y = np.array(a), np.array(b)
    generic = bootstrap(lambda rows: float(np.mean(y[rows] - x[rows])), len(a), labels, **more)
    assert ends(generic) == near(expected)
    a = [value + 0.1 for value in a]
    expected = slow(
        lambda rows: mean([q for _, q in rows]) / mean([p for p, _ in rows]), list(zip(a, b)), labels, **more
    )
    assert ends(ratio_bootstrap(a, b, labels, **more)) == near(expected)


@quick
@given(samples)
def test_equal_runs_differ_by_exactly_nothing(found):
    a, _, labels = zip(*found)
    assert paired_bootstrap(a, a, labels, resamples=FEW) == Interval(0, 0, 0)
    a = [value + 0.1 for value in a]
    assert ratio_bootstrap(a, a, labels, resamples=FEW) == Interval(1, 1, 1)


@quick
@given(samples)
def test_swapping_the_runs_turns_the_interval_round(found):
    a, b, labels = zip(*found)
    there = paired_bootstrap(a, b, labels, resamples=FEW)
    back = paired_bootstrap(b, a, labels, resamples=FEW)
    assert ends(back) == (-there.value, -there.high, -there.low)


@quick
@given(samples, st.randoms(use_true_random=False))
def test_the_order_of_samples_and_groups_does_not_matter(found, shuffler):
    shuffled = list(found)
    shuffler.shuffle(shuffled)
    (a, b, labels), (c, d, others) = zip(*found), zip(*shuffled)
    expected = paired_bootstrap(a, b, labels, resamples=FEW)
    assert ends(paired_bootstrap(c, d, others, resamples=FEW)) == near(ends(expected))
    named = [f"image {k}" for k in labels]
    assert paired_bootstrap(a, b, named, resamples=FEW) == expected
    assert paired_bootstrap(a, b, np.array(labels), resamples=FEW) == expected


@quick
@given(samples)
def test_groups_of_one_are_no_groups(found):
    a, b, _ = zip(*found)
    own = range(len(a))
    assert paired_bootstrap(a, b, own, resamples=FEW) == paired_bootstrap(a, b, resamples=FEW)
    assert mean_interval(a, own, resamples=FEW) == mean_interval(a, resamples=FEW)


def test_labels_that_do_not_compare_are_labels_all_the_same():
    a, labels = [1, 0, 1, 1, 0], ["x", 3, None, 3, "x"]
    found = mean_interval(a, labels)
    shuffled = mean_interval(a[::-1], labels[::-1])
    assert found == shuffled and found.low < 0.6 < found.high


def test_the_worked_example_of_forty_pairs():
    a = [1] * 10 + [0] * 5 + [1] * 15 + [0] * 10
    b = [0] * 10 + [1] * 5 + [1] * 15 + [0] * 10
    found = paired_bootstrap(a, b)
    assert found.value == -0.125 and found.level == 0.95
    assert found.low == pytest.approx(-0.30, abs=0.026) and found.high == pytest.approx(0.05, abs=0.026)
    assert paired_bootstrap(a, b) == found != paired_bootstrap(a, b, seed=1, resamples=501)


def test_wide_data_are_drawn_in_blocks_that_change_nothing(monkeypatch):
    rng = np.random.default_rng(5)
    a, b, labels = rng.random(300), rng.random(300), rng.integers(0, 70, 300)
    at_once = paired_bootstrap(a, b, labels, resamples=1000)
    monkeypatch.setattr(room, "_BLOCK", 70 * 3 + 1)
    assert paired_bootstrap(a, b, labels, resamples=1000) == at_once


def test_ten_thousand_groups_need_little_memory():
    import tracemalloc

    rng = np.random.default_rng(0)
    a, b = rng.random((2, 10_000)) < 0.6
    tracemalloc.start()
    found = paired_bootstrap(a, b, resamples=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6 and found.low < found.value < found.high


def coverage(plain_labels, seed=0, repeats=300, clusters=40, size=5):
    """How often a 95 % interval of clustered 0/1 scores holds the true mean: samples of a cluster mostly agree."""
    rng = np.random.default_rng(seed)
    hits = 0
    for repeat in range(repeats):
        level = np.repeat(rng.random(clusters) < 0.5, size)
        a = np.where(rng.random(clusters * size) < 0.8, level, rng.random(clusters * size) < 0.5)
        labels = None if plain_labels else np.repeat(np.arange(clusters), size)
        found = mean_interval(a, labels, resamples=400, seed=repeat)
        hits += found.low <= 0.5 <= found.high
    return hits / repeats


def test_a_cluster_interval_covers_the_truth_as_often_as_it_says():
    assert 0.90 <= coverage(plain_labels=False) <= 0.985


def test_forgetting_the_clusters_does_not():
    assert coverage(plain_labels=True) < 0.75


def test_a_statistic_that_is_no_mean():
    rng = np.random.default_rng(2)
    values = rng.normal(3, 1, 400)
    found = bootstrap(lambda rows: float(np.median(values[rows])), 400, resamples=500)
    assert found.value == np.median(values) and found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(math.pi / 2 / 400), rel=0.35)


def test_whole_groups_are_drawn():
    labels = random.Random(0).choices("abcdefg", k=60)
    sizes = {label: labels.count(label) for label in labels}

    def check(rows):
        seen = [labels[r] for r in rows]
        drawn = [seen.count(label) / sizes[label] for label in sizes]
        assert all(times == int(times) for times in drawn) and sum(drawn) == len(sizes)
        assert all(rows.tolist().count(r) == seen.count(labels[r]) / sizes[labels[r]] for r in rows)
        return 0.0

    bootstrap(check, 60, labels, resamples=50)


def test_a_share_of_almost_nothing_is_open_above():
    a, b = [1] + [0] * 9, [1] + [0] * 9
    found = ratio_bootstrap(a, b)
    assert found.value == 1 and found.low == 1 and found.high == math.inf


@pytest.mark.parametrize(("call", "message"), [
    (lambda: paired_bootstrap([1, math.nan], [1, 1]), "a: sample 1 of 2 has the score nan"),
    (lambda: paired_bootstrap([1, 1], [math.inf, 1]), "b: sample 0 of 2"),
    (lambda: paired_bootstrap([1, 1], [1]), "a has 2, b has 1"),
    (lambda: paired_bootstrap([], []), "at least one"),
    (lambda: mean_interval([[1, 2]]), r"shape \(1, 2\)"),
    (lambda: mean_interval([1, 2], ["a"]), "1 labels for 2 samples"),
    (lambda: mean_interval([1, 2], resamples=0), "resamples=0"),
    (lambda: mean_interval([1, 2], level=95), "level=95"),
    (lambda: ratio_bootstrap([0, 0], [1, 0]), "not 0 throughout"),
    (lambda: ratio_bootstrap([1, 1], [-1, 0]), "scores of 0 and more"),
    (lambda: bootstrap(lambda rows: math.nan, 3), "the statistic is NaN"),
    (lambda: bootstrap(lambda rows: 0.0, 0), "at least one sample"),
])  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
