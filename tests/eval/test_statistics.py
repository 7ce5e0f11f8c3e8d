"""Tests and verdicts on paired scores, against scipy, simulations and worked examples."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.errors import InputError, MissingExtraError
from tokenprune.eval.statistics import (
    Flips,
    Interval,
    McNemar,
    agreement,
    clustered_stderr,
    flips,
    holm,
    mcnemar,
    minimum_detectable_difference,
    non_inferior,
    paired_ttest,
    relative_score,
)

quick = settings(max_examples=100, deadline=None, derandomize=True)
pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=60)
FORTY = (
    [1] * 10 + [0] * 5 + [1] * 15 + [0] * 10,  # 10 lost, 5 gained, 25 the same
    [0] * 10 + [1] * 5 + [1] * 15 + [0] * 10,
)


def test_the_worked_example_of_forty_pairs():
    stats = pytest.importorskip("scipy.stats")
    found = mcnemar(*FORTY)
    assert (found.gained, found.lost) == (5, 10) and found.p == pytest.approx(0.301758, abs=5e-7)
    assert found.p == pytest.approx(stats.binomtest(5, 15).pvalue, rel=1e-12)
    test = paired_ttest(*FORTY)
    assert test.difference.value == -0.125 and test.stderr == pytest.approx(0.095993, abs=5e-7)


@quick
@given(pairs)
def test_mcnemar_against_scipy_and_swapped(found):
    stats = pytest.importorskip("scipy.stats")
    a, b = zip(*found)
    test, back = mcnemar(a, b), mcnemar(b, a)
    assert (test.gained, test.lost, test.p) == (back.lost, back.gained, back.p)
    assert flips(a, b) == Flips(lost=test.lost, gained=test.gained)
    if changed := test.gained + test.lost:
        assert test.p == pytest.approx(stats.binomtest(test.gained, changed).pvalue, rel=1e-9)
    else:
        assert test.p == 1


def test_mcnemar_of_many_samples_is_exact():
    stats = pytest.importorskip("scipy.stats")
    a = np.zeros(20_000)
    b = a.copy()
    a[:6_000], b[6_000:12_200] = 1, 1
    assert mcnemar(a, b).p == pytest.approx(stats.binomtest(6_000, 12_200).pvalue, rel=1e-9)
    assert mcnemar(a == 1, b == 1) == mcnemar(a, b)


def test_mcnemar_takes_right_and_wrong_only():
    assert mcnemar([1], [1]) == McNemar(0, 0, 1.0)
    with pytest.raises(InputError, match="scores of 0 and 1"):
        mcnemar([0.3, 1], [1, 1])


def test_flips_of_graded_scores():
    a, b = [1, 0.3, 0.5, 0.4], [0.9, 0.6, 0.49, 0.3]
    assert flips(a, b) == Flips(lost=1, gained=1)
    assert flips(a, b, right=0.95) == Flips(lost=1, gained=0)


# The example of the specification subtracts the other way round, so its two runs change places here.
RUNS = [1, 0, 0, 1, 1, 1, 0, 0], [1, 1, 0, 1, 0, 1, 1, 0]


def test_the_worked_example_of_the_t_test():
    pytest.importorskip("scipy")
    test = paired_ttest(*RUNS)
    found = (test.difference.value, test.stderr, test.difference.low, test.difference.high, test.t, test.p)
    assert found == pytest.approx((0.125, 0.226582, -0.410781, 0.660781, 0.551677, 0.598331), abs=5e-7)
    back = paired_ttest(*RUNS[::-1])
    assert (back.difference.low, back.t, back.p) == (-test.difference.high, -test.t, test.p)


@quick
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30),
    st.sampled_from([0.8, 0.95]),
)
def test_the_t_test_against_scipy(found, level):
    stats = pytest.importorskip("scipy.stats")
    a, b = (np.array(column) for column in zip(*found))
    if np.std(b - a) < 1e-3:  # nothing but rounding errors to compare
        return
    test, reference = paired_ttest(a, b, level=level), stats.ttest_rel(b, a)
    assert (test.t, test.p) == pytest.approx((reference.statistic, reference.pvalue), rel=1e-6, abs=1e-9)
    interval = reference.confidence_interval(level)
    assert (test.difference.low, test.difference.high) == pytest.approx(tuple(interval), rel=1e-6, abs=1e-9)


def test_the_t_test_without_spread():
    pytest.importorskip("scipy")
    same = paired_ttest([1, 0, 1], [1, 0, 1])
    assert (same.difference, same.t, same.p) == (Interval(0, 0, 0), 0, 1)
    shifted = paired_ttest([1, 0.5], [0.5, 0])
    assert (shifted.t, shifted.p, shifted.difference.high) == (-math.inf, 0, -0.5)
    with pytest.raises(InputError, match="two samples"):
        paired_ttest([1], [0])


def test_without_scipy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingExtraError, match=r"scipy.*tokenprune-vlm\[eval\]"):
        paired_ttest([1, 0], [0, 1])


def test_clustered_stderr():
    assert clustered_stderr([1, 1, 0, 0], "aabb") == pytest.approx(0.381881, abs=5e-7)
    assert clustered_stderr([1, 1, 0, 0], "abcd") == pytest.approx(0.288675, abs=5e-7)
    with pytest.raises(InputError, match="two samples"):
        clustered_stderr([1], "a")


@quick
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=2, max_size=30))
def test_clustered_stderr_against_all_pairs(found):
    a, clusters = zip(*found)
    n, m = len(a), sum(a) / len(a)
    cross = sum(
        (a[i] - m) * (a[j] - m) for i in range(n) for j in range(n) if i != j and clusters[i] == clusters[j]
    )
    expected = np.var(a, ddof=1) / n + cross / n**2
    assert clustered_stderr(a, clusters) ** 2 == pytest.approx(expected, abs=1e-9)


def test_agreement_and_relative_score():
    assert agreement(["Yes.", "a cat", "2"], ["yes", "a dog", "two"]) == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="2 and 1 outputs"):
        agreement(["a", "b"], ["a"])
    unpruned = {"gqa": 60.0, "mme": 1500.0}
    assert relative_score({"mme": 1350.0, "gqa": 57.0}, unpruned) == pytest.approx((0.95 + 0.9) / 2)
    for pruned, full, message in (
        ({"gqa": 1.0}, unpruned, "lacks mme"),
        ({"gqa": 1.0, "mme": 1.0}, {"gqa": 0.0, "mme": 0.0}, "score of 0: gqa, mme"),
        ({"gqa": math.nan, "mme": 1.0}, unpruned, "no finite score in gqa"),
        ({}, {}, "at least one"),
    ):
        with pytest.raises(InputError, match=message):
            relative_score(pruned, full)


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.4]) == [0.4] and holm([0.9, 0.8]) == [1, 1]
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="p-values lie in"):
            holm([0.5, wrong])


@quick
@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.001, 0.5))
def test_holm_is_monotone_never_lower_and_rejects_step_by_step(raw, alpha):
    adjusted = holm(raw)
    assert all(p <= q <= 1 for p, q in zip(raw, adjusted))
    order = sorted(range(len(raw)), key=lambda i: raw[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)
    rejected = 0  # as the paper words it: from the smallest on, until one is not below alpha / (those left)
    while rejected < len(raw) and (len(raw) - rejected) * raw[order[rejected]] <= alpha:
        rejected += 1
    assert sum(q <= alpha for q in adjusted) == rejected


@quick
@given(st.integers(20, 10**5), st.floats(0.01, 1), st.floats(0.5, 0.99), st.floats(0.001, 0.2))
def test_the_detectable_difference_solves_its_equation(n, share, power, alpha):
    from statistics import NormalDist

    d = minimum_detectable_difference(n, share, power, alpha)
    if math.isinf(d):
        return
    z = NormalDist().inv_cdf
    need = z(1 - alpha / 2) * math.sqrt(share) + z(power) * math.sqrt(share - d * d)
    assert d * math.sqrt(n) == pytest.approx(need)
    assert minimum_detectable_difference(4 * n, share, power, alpha) < d <= share


def test_the_detectable_difference_is_detected_that_often():
    n, share = 500, 0.2
    d = minimum_detectable_difference(n, share)
    rng = np.random.default_rng(0)
    gained, lost, _ = rng.multinomial(n, [(share + d) / 2, (share - d) / 2, 1 - share], size=20_000).T
    detected = np.abs(gained - lost) / np.sqrt(gained + lost) > 1.959964
    assert detected.mean() == pytest.approx(0.8, abs=0.02)


def test_too_few_samples_detect_nothing():
    assert minimum_detectable_difference(20, 0.1) == math.inf
    assert minimum_detectable_difference(3, 1.0) == minimum_detectable_difference(100, 0.0) == math.inf
    assert minimum_detectable_difference(2500, 0.1) == pytest.approx(2.8016 * math.sqrt(0.1 / 2500), rel=0.01)
    for wrong in ((0, 0.1), (10, -0.1), (10, 1.1), (10, 0.1, 0.4), (10, 0.1, 1.0), (10, 0.1, 0.8, 0.0)):
        with pytest.raises(InputError, match="discordant_share="):
            minimum_detectable_difference(*wrong)


@pytest.mark.parametrize(("low", "high", "verdict"), [
    (-0.009, 0.02, "non-inferior"), (0.01, 0.02, "non-inferior"), (-0.02, 0.02, "undecided"),
    (-0.01, 0.02, "undecided"), (-0.05, -0.01, "undecided"), (-0.05, -0.02, "inferior"),
])  # fmt: skip
def test_verdicts(low, high, verdict):
    assert non_inferior(Interval((low + high) / 2, low, high), 0.01) == verdict


@pytest.mark.parametrize("margin", [0, -0.01, math.nan, math.inf])
def test_a_margin_is_above_0(margin):
    with pytest.raises(InputError, match="margin="):
        non_inferior(Interval(0, 0, 0), margin)
