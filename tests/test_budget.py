"""From `keep` to integers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune import budget
from tokenprune.errors import BudgetError, TokenPruneError

quick = settings(max_examples=100, deadline=None, derandomize=True)
shares = st.floats(0, 1, exclude_min=True)


@pytest.mark.parametrize(
    "keep", [0, -1, 0.0, -0.5, 1.5, True, False, float("nan"), float("inf"), "x", None, [1]]
)
def test_keep_outside_its_range_names_the_range(keep):
    with pytest.raises(BudgetError, match=r"share in \(0, 1\].*count >= 1"):
        budget.check_keep(keep)


def test_keep_comes_back_as_a_plain_number():
    numpy = pytest.importorskip("numpy")
    for given_, expected in ((1, 1), (1.0, 1.0), (numpy.int64(7), 7), (numpy.float32(0.5), 0.5)):
        got = budget.check_keep(given_)
        assert got == expected and type(got) is type(expected)
    assert issubclass(BudgetError, TokenPruneError) and issubclass(BudgetError, ValueError)


@quick
@given(shares, st.integers(1, 10**6))
def test_a_share_rounds_half_up_and_keeps_at_least_one(keep, n):
    assert budget.count(keep, n) == max(1, math.floor(keep * n + 0.5))
    assert 1 <= budget.count(keep, n) <= n


@quick
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_count_is_taken_as_it_is(keep, n):
    assert budget.count(keep, n) == min(keep, n)


def test_one_means_one_token_and_one_point_zero_means_all():
    assert budget.count(1, 576) == 1 and budget.count(1.0, 576) == 576
    assert budget.count(0.5, 5) == 3 and budget.count(0.125, 4) == 1 and budget.count(0.001, 10) == 1


@quick
@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 50)), min_size=1, max_size=12), st.data())
def test_shares_sum_exactly_and_respect_their_limits(parts, data):
    weights, caps = [w for w, _ in parts], [c for _, c in parts]
    least = data.draw(st.integers(0, 3))
    low = [min(least, c) for c in caps]
    total = data.draw(st.integers(sum(low), sum(caps)))
    out = budget.share_out(weights, total, caps, least)
    assert sum(out) == total
    assert all(a <= x <= c for a, x, c in zip(low, out, caps, strict=True))


@quick
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12), st.integers(0, 500))
def test_without_limits_each_share_is_the_floor_or_ceiling_of_its_proportion(weights, total):
    out = budget.share_out(weights, total)
    ideal = [total * w / sum(weights) for w in weights]
    assert sum(out) == total
    assert all(math.floor(i - 1e-9) <= x <= math.ceil(i + 1e-9) for i, x in zip(ideal, out, strict=True))


def test_ties_and_weightless_parts():
    assert budget.share_out([1, 1, 1], 2) == [1, 1, 0]
    assert budget.share_out([1, 1, 1], 4) == [2, 1, 1]
    assert budget.share_out([0, 0], 3) == [2, 1]
    assert budget.share_out([1, 0], 4, caps=[3, 5]) == [3, 1]
    assert budget.share_out([0, 5], 4, least=1) == [1, 3]
    for total in (-1, 7):
        with pytest.raises(BudgetError, match="cannot share"):
            budget.share_out([1, 1], total, caps=[3, 3])
    with pytest.raises(BudgetError, match="cannot share"):
        budget.share_out([1, 1], 1, caps=[3, 3], least=1)


def test_layers_by_index_and_by_share():
    assert [budget.resolve_layer(k, 32) for k in (0, 2, 31, 0.0, 0.5, 0.0625)] == [0, 2, 31, 0, 16, 2]
    for layer in (float("nan"), -1, 32, 1.0, True, "2", None):
        with pytest.raises(BudgetError, match="0 to 31"):
            budget.resolve_layer(layer, 32)
    with pytest.raises(BudgetError, match="0 to 9"):
        budget.resolve_layer(10, 32, upper=10)


def test_one_token_is_not_all_of_them_however_often_it_was_asked():
    """1 and 1.0 are equal, and mean a token and the whole."""
    for first, second in ((1.0, 1), (1, 1.0)):
        plans = [budget.many_cuts(keep, 40, [1, 3], 8, "after") for keep in (first, second)]
        assert {keep: plan[3] for keep, plan in zip((type(first), type(second)), plans)} == {float: 40, int: 1}


@quick
@given(shares, st.integers(1, 3000), st.integers(1, 60), st.data())
def test_one_cut_meets_the_layer_average_or_names_the_floor(keep, n, layers, data):
    layer = data.draw(st.integers(0, layers - 1))
    target = budget.count(keep, n)
    floor = (layer * n + (layers - layer)) / layers
    try:
        plan = budget.one_cut(keep, n, layer, layers)
    except BudgetError as error:
        assert target < floor and f"{floor:.1f}" in str(error)
        return
    assert list(plan) == [layer] and 1 <= plan[layer] <= n
    if layer == 0:
        assert plan == {0: target}
    assert abs(budget.layer_average(plan, n, layers) - target) <= 0.5 * (layers - layer) / layers + 1e-9
    assert budget.one_cut(keep, n, layer, layers, "after") == {layer: target}


def test_layer_average_of_a_pyramid():
    plan = {8: 288, 16: 144, 24: 72}
    assert budget.layer_average(plan, 576, 32) == 270
    assert [budget.alive_at(plan, 576, k) for k in (0, 7, 8, 23, 24, 31)] == [576, 576, 288, 144, 72, 72]
    assert budget.one_cut(0.5, 576, 2, 32) == {2: 269}
    with pytest.raises(BudgetError, match="'average' or 'after'"):
        budget.one_cut(0.5, 576, 2, 32, "before")


def test_a_floor_is_named():
    budget.check_floor(0.25, 24, 6.0, "why")
    budget.check_floor(30, 24, 24.0, "why")
    with pytest.raises(BudgetError, match=r"^why: keep=0.1 asks for 2 of 24, the floor is 6.0 \(25.0%\)$"):
        budget.check_floor(0.1, 24, 6.0, "why")


@pytest.mark.parametrize("value", [0, 5, -1.0, 3.5, float("nan"), float("inf"), True, "2", None])
def test_a_number_outside_its_range_is_named(value):
    with pytest.raises(BudgetError, match="size=.*an int from 1 to 4"):
        budget.check_number("size", value, 1, 4, whole=True)
    budget.check_number("size", 2, 1, 4, whole=True)
    budget.check_number("size", 3.5, 1, 4)
