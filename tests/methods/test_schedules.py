"""Counts of every method of the layer stage: what `keep` means there, and where it ends."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tokenprune import budget
from tokenprune.errors import BudgetError
from tokenprune.methods import get_method, list_methods, method_class

quick = settings(max_examples=80, deadline=None, derandomize=True)
LAYER = [n for n in list_methods() if method_class(n).stage == "layer" and get_method(n).exact]
INPUT = [n for n in list_methods() if method_class(n).stage == "input"]


@pytest.mark.parametrize("name", LAYER)
@quick
@given(st.integers(1, 3000), st.integers(4, 80), st.data())
def test_the_layer_average_is_met_or_the_floor_is_named(name, n, layers, data):
    keep = data.draw(st.integers(1, n) | st.floats(0, 1, exclude_min=True))
    method = get_method(name, keep=keep)
    cuts, target = method.cut_layers(layers), budget.count(keep, n)
    floor = method.floor(n, layers)
    assert floor == pytest.approx((cuts[0] * n + layers - cuts[0]) / layers)
    try:
        plan = method.schedule(n, layers)
    except BudgetError as error:
        assert target < floor and f"{floor:.1f}" in str(error)
        return
    alive = list(plan.values())
    assert tuple(plan) == cuts and all(1 <= k <= n for k in alive)
    assert all(a >= b for a, b in itertools.pairwise(alive))
    rounding = 0.5 * (layers - cuts[0]) / layers
    assert abs(budget.layer_average(plan, n, layers) - target) <= rounding + 1e-9
    assert target >= floor - rounding
    assert method.num_kept(n, layers) == alive[-1]


@pytest.mark.parametrize("name", LAYER)
@quick
@given(st.integers(1, 3000), st.integers(4, 80), st.data())
def test_the_floor_can_be_asked_for(name, n, layers, data):
    floor = get_method(name).floor(n, layers)
    keep = data.draw(st.integers(min(n, math.ceil(floor)), n))
    assume(keep >= floor)
    plan = get_method(name, keep=keep).schedule(n, layers)
    if keep == n:
        assert set(plan.values()) == {n}
    lowest = get_method(name, keep=max(1, math.floor(floor)))
    if math.floor(floor) == floor:
        assert set(lowest.schedule(n, layers).values()) == {1}


@pytest.mark.parametrize("name", LAYER)
@quick
@given(st.integers(1, 3000), st.integers(4, 80), st.data())
def test_after_means_what_the_last_cut_leaves(name, n, layers, data):
    keep = data.draw(st.integers(1, n))
    plan = get_method(name, keep=keep, budget="after").schedule(n, layers)
    alive = list(plan.values())
    assert alive[-1] == keep and alive == sorted(alive, reverse=True) and alive[0] <= n


@pytest.mark.parametrize("name", INPUT)
def test_the_input_stage_has_a_floor_of_one_token(name):
    assert get_method(name).floor(576, 32) == 1.0


@quick
@given(st.integers(1, 2000), st.integers(2, 60), st.data())
def test_one_of_many_cuts_is_one_cut(n, layers, data):
    layer, keep = data.draw(st.integers(1, layers - 1)), data.draw(st.integers(1, n))
    ratio = data.draw(st.sampled_from([None, 0.5]))
    try:
        expected = budget.one_cut(keep, n, layer, layers)
    except BudgetError:
        with pytest.raises(BudgetError):
            budget.many_cuts(keep, n, [layer], layers, ratio=ratio)
        return
    assert budget.many_cuts(keep, n, [layer], layers, ratio=ratio) == expected


@quick
@given(st.integers(1, 300), st.lists(st.integers(1, 29), min_size=1, max_size=4, unique=True), st.data())
def test_more_is_never_less_and_the_ratio_is_kept(n, layers, data):
    layers, ratio = sorted(layers), data.draw(st.sampled_from([0.5, 0.8, 1.0]))
    low = math.ceil(budget.layer_floor(n, layers[0], 30))
    before: list[int] = [0] * len(layers)
    for keep in range(low, n + 1, max(1, n // 9)):
        alive = list(budget.many_cuts(keep, n, layers, 30, ratio=ratio).values())
        assert all(a <= b for a, b in zip(before, alive, strict=True))
        for a, b in itertools.pairwise(alive):
            assert b in (1, n) or a == n or abs(b - ratio * a) <= 0.5 * (1 + ratio) + 1e-9
        before = alive


def test_published_pyramids():
    assert get_method("pyramiddrop").schedule(576, 32) == {8: 288, 16: 144, 24: 72}
    assert get_method("pyramiddrop", ratio=0.5).schedule(576, 32) == {8: 288, 16: 144, 24: 72}
    assert get_method("pyramiddrop", keep=0.125, budget="after").schedule(576, 32) == {
        8: 288,
        16: 144,
        24: 72,
    }
    plan = get_method("pyramiddrop", keep=192).schedule(576, 32)
    assert budget.layer_average(plan, 576, 32) == pytest.approx(192, abs=0.4)
    with pytest.raises(BudgetError, match=r"144\.8 \(25\.1%\)"):
        get_method("pyramiddrop", keep=128).schedule(576, 32)
    plan = get_method("pyramiddrop", keep=128, layers=[2, 8, 16]).schedule(576, 32)
    assert budget.layer_average(plan, 576, 32) == pytest.approx(128, abs=0.5)


def test_sparsevlm_comes_near_to_the_published_lists():
    plans = {k: get_method("sparsevlm", keep=k).schedule(576, 32) for k in (192, 128, 64)}
    assert plans == {
        192: {2: 391, 6: 196, 15: 98},
        128: {2: 231, 6: 115, 15: 58},
        64: {2: 70, 6: 35, 15: 18},
    }
    for keep, plan in plans.items():
        assert budget.layer_average(plan, 576, 32) == pytest.approx(keep, abs=0.5)


def test_shares_of_the_depth_never_mean_layer_0():
    assert get_method("sparsevlm").cut_layers(32) == (2, 6, 15)
    assert get_method("sparsevlm").cut_layers(4) == (1, 2), "three shares may be two layers"
    assert get_method("fastv", layer=0.01).cut_layers(20) == (1,)
    for name, hyper in (("fastv", {"layer": 9}), ("pyramiddrop", {"layers": [2, 9]})):
        with pytest.raises(BudgetError, match="0 to 7"):
            get_method(name, **hyper).cut_layers(8)
    with pytest.raises(BudgetError):
        get_method("fastv", layer=0.5).cut_layers(1)


@pytest.mark.parametrize(
    "hyper",
    [{"layers": []}, {"layers": "2"}, {"layers": [0]}, {"layers": [2, None]}, {"layers": 3}, {"ratio": 0.0},
     {"ratio": 1.5}, {"ratio": True}, {"ratio": float("nan")}, {"budget": None}],
)  # fmt: skip
@pytest.mark.parametrize("name", ["pyramiddrop", "sparsevlm"])
def test_what_is_refused(name, hyper):
    with pytest.raises(BudgetError, match=next(iter(hyper))):
        get_method(name, **hyper)
