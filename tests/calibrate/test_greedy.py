import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.calibrate.greedy import greedy_addition, greedy_removal, longest_run
from tokenprune.errors import InputError

# A toy with a known answer. A layer that does not look costs its weight times 1 - overlap with the nearest layer that
# looks before it: .95 inside a block, .4 across. Nothing looks before layer 0, so it is never removed.
BLOCKS = (0, 1, 1, 1, 2, 2, 3, 3)
WEIGHTS = (1, 1, 1, 1, 3, 1, 1, 2)


def toy(focal):
    total, latest = 0.0, None
    for layer, (block, weight) in enumerate(zip(BLOCKS, WEIGHTS)):
        if layer in focal:
            latest = layer
        else:
            total += weight * (1 - (0.95 if block == BLOCKS[latest] else 0.4))
    return total


def test_the_toy_is_searched_as_published():
    found = greedy_removal(8, toy, fixed=(0,))
    assert found.order[:4] == (2, 3, 5, 7)
    assert [found.costs[m] for m in (8, 7, 6, 5, 4)] == pytest.approx([0, 0.05, 0.10, 0.15, 0.25])
    assert found.sets[4] == (0, 1, 4, 6)
    assert toy((0, 2, 4, 6)) == pytest.approx(0.80)  # every second layer
    assert found.sets[2] == (0, 4) and found.costs[2] == pytest.approx(3.65)
    assert found.sets[1] == (0,)


@pytest.mark.parametrize(("layers", "kept", "evaluations"), [(28, 7, 357), (36, 9, 594), (47, 12, 1015)])
def test_evaluations_are_those_of_the_algorithm(layers, kept, evaluations):
    sizes = []

    def cost(focal):
        sizes.append(len(focal))
        return -float(sum(focal))

    found = greedy_removal(layers, cost, fixed=(0,))
    assert sum(kept <= size < layers for size in sizes) == evaluations
    assert found.evaluations == len(sizes)
    assert found.order == tuple(range(1, layers))


def test_of_equal_layers_the_lowest_goes_first_and_not_a_number_is_worst():
    assert greedy_removal(5, lambda focal: 0.0).order == (0, 1, 2, 3)
    odd = greedy_removal(4, lambda focal: math.nan if 2 not in focal else float(len(focal)))
    assert odd.sets[1] == (2,)


costs = st.lists(st.integers(0, 1000), min_size=2**6, max_size=2**6)


def of(table):
    return lambda focal: table[sum(1 << layer for layer in focal)] / 8


@settings(derandomize=True, max_examples=30, deadline=None)
@given(costs)
def test_every_step_takes_the_best_of_what_is_left(table):
    cost = of(table)
    down, up = greedy_removal(6, cost), greedy_addition(6, cost)
    assert set(down.sets) == set(up.sets) == set(range(1, 7))
    for found in (down, up):
        for m in range(1, 6):
            assert set(found.sets[m]) < set(found.sets[m + 1])
        assert all(found.costs[m] == cost(found.sets[m]) for m in found.sets)
        assert sorted((*found.order, *found.sets[1])) == list(range(6))
    for m in range(1, 6):
        assert down.costs[m] == min(cost(s) for s in itertools.combinations(down.sets[m + 1], m))
        rest = set(range(6)) - set(up.sets[m])
        assert up.costs[m + 1] == min(cost(tuple(sorted((*up.sets[m], k)))) for k in rest)
    assert down.evaluations == up.evaluations == 21 and down.quick == 0
    assert up.costs[1] == min(cost((k,)) for k in range(6))


@settings(derandomize=True, max_examples=30, deadline=None)
@given(costs, costs, st.integers(1, 6), st.booleans())
def test_a_quick_cost_only_makes_the_short_list(table, rough, rerank, gives_up):
    cost, guess = of(table), of(rough)

    def quick(focal, bound):
        return math.inf if gives_up and guess(focal) > bound else guess(focal)

    found = greedy_removal(6, cost, quick=quick, rerank=rerank)
    for m in range(1, 6):
        options = list(itertools.combinations(found.sets[m + 1], m))[::-1]  # by the layer that goes
        if len(options) > rerank:
            options = sorted(options, key=guess)[:rerank]
        assert found.costs[m] == min(map(cost, options)) and found.sets[m] in options
    assert found.evaluations == 1 + sum(min(n, rerank) for n in range(2, 7))
    assert found.quick == sum(n for n in range(2, 7) if n > rerank)
    same = greedy_removal(6, cost, quick=lambda focal, bound: cost(focal), rerank=rerank)
    assert same.sets == greedy_removal(6, cost).sets


@settings(derandomize=True, max_examples=30, deadline=None)
@given(costs, st.integers(1, 5))
def test_no_run_is_longer_than_allowed(table, most):
    found = greedy_removal(6, of(table), max_run=most)
    for focal in found.sets.values():
        looks = "".join("F" if k in focal else "S" for k in range(6))
        assert longest_run(focal, 6) == max(map(len, looks.split("F"))) <= most
    smallest = found.sets[min(found.sets)]
    shorter = [tuple(k for k in smallest if k != layer) for layer in smallest]
    assert len(smallest) == 1 or all(longest_run(s, 6) > most for s in shorter)


def test_addition_stops_at_the_count_that_was_asked_for():
    found = greedy_addition(8, lambda focal: -float(sum(focal)), most=3)
    assert found.sets == {1: (7,), 2: (6, 7), 3: (5, 6, 7)} and found.order == (5, 6)
    assert found.evaluations == 8 + 7 + 6


@pytest.mark.parametrize(
    ("search", "options"),
    [
        (greedy_removal, {"fixed": (8,)}),
        (greedy_removal, {"max_run": 0}),
        (greedy_removal, {"rerank": 0}),
        (greedy_addition, {"most": 0}),
        (greedy_addition, {"most": 9}),
        (greedy_addition, {"num_layers": 0}),
    ],
)
def test_numbers_out_of_range_are_refused(search, options):
    with pytest.raises(InputError, match=next(iter(options))):
        search(**{"num_layers": 8, "cost": toy, **options})
