"""How many tokens each block merges: exact counts, evenly, never more than half."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.budget import count
from tokenprune.errors import BudgetError
from tokenprune.towers.schedule import Schedule

quick = settings(max_examples=300, deadline=None, derandomize=True)


def merged(counts: tuple[int, ...], n: int) -> list[int]:
    return [a - b for a, b in zip((n, *counts), counts)]


@quick
@given(st.integers(1, 700), st.integers(1, 27), st.data())
def test_keep_is_met_exactly_and_evenly(n, depth, data):
    keep = data.draw(st.one_of(st.floats(0.01, 1.0), st.integers(1, 800)))
    target = count(keep, n)
    floor = n
    for _ in range(depth):
        floor = floor - floor // 2
    schedule = Schedule.of(depth, None, keep, None)
    if target < floor:
        with pytest.raises(BudgetError, match=f"leave {floor} "):
            schedule.counts(n)
        return
    counts = schedule.counts(n)
    each = merged(counts, n)
    assert len(counts) == depth and counts[-1] == target
    before = (n, *counts)
    assert all(0 <= r <= b // 2 for r, b in zip(each, before))
    even = [(i + 1) * (n - target) // depth for i in range(depth)]
    if all(e - d <= (n - d) // 2 for e, d in zip(even, [0, *even])):  # half is never the limit
        assert max(each) - min(each) <= 1


@quick
@given(st.integers(1, 300), st.integers(0, 40), st.integers(1, 12))
def test_r_is_what_every_block_merges_or_refused(n, r, depth):
    schedule, left = Schedule.of(depth, r, None, None), n
    for _ in range(depth):
        if r > left // 2:
            most = max(x for x in range(n + 1) if fits(n, x, depth))
            with pytest.raises(BudgetError, match=f"can be {most}$"):
                schedule.counts(n)
            return
        left -= r
    assert merged(schedule.counts(n), n) == [r] * depth


def fits(n: int, r: int, depth: int) -> bool:
    for _ in range(depth):
        if r > n // 2:
            return False
        n -= r
    return True


def test_chosen_layers_and_lists():
    assert Schedule.of(6, [3, 0, 2], None, [1, 4, 2]).counts(20) == (20, 17, 17, 17, 15, 15)
    assert Schedule.of(4, None, 10, [0.5]).counts(20) == (20, 20, 10, 10)
    assert Schedule.of(4, None, 0.05, None).counts(16) == (8, 4, 2, 1)


@pytest.mark.parametrize("r", [-1, 1.5, True, "3", float("nan"), [1, 2], [1, 2, "3"], []])
def test_bad_r(r):
    with pytest.raises(BudgetError, match="^r="):
        Schedule.of(3, r, None, None)


@pytest.mark.parametrize("keep", [0, 0.0, 1.1, -0.5, True, float("nan"), "half"])
def test_bad_keep(keep):
    with pytest.raises(BudgetError, match="^keep="):
        Schedule.of(3, None, keep, None)


@pytest.mark.parametrize("layers", [3, [], "01", [3], [-1], [True], [float("nan")], ["0"]])
def test_bad_layers(layers):
    with pytest.raises(BudgetError, match=r"^layers?="):
        Schedule.of(3, 1, None, layers)


def test_one_of_r_and_keep():
    for r, keep in ((None, None), (2, 0.5)):
        with pytest.raises(BudgetError, match="either r"):
            Schedule.of(3, r, keep, None)
