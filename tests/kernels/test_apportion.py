"""Largest remainder on the device against exact fractions, filled up in turns."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.watch import Watch
from tokenprune.errors import BudgetError
from tokenprune.kernels import largest_remainder


def reference(weights: list[int], total: int, cap: list[int], least: int) -> list[int]:
    """In turns: what would overflow is filled, the rest is shared afresh; then the largest remainders."""
    out, left = [least] * len(weights), total - least * len(weights)
    while left:
        free = [i for i, n in enumerate(out) if n < cap[i]]
        heavy = [i for i in free if weights[i]]
        free = heavy or free
        mass = sum(weights[i] for i in free) if heavy else len(free)
        ideal = {i: Fraction(left * (weights[i] if heavy else 1), mass) for i in free}
        full = [i for i in free if ideal[i] >= cap[i] - out[i]]
        for i in full:
            left -= cap[i] - out[i]
            out[i] = cap[i]
        if not full:
            for i in free:
                out[i] += int(ideal[i])
                left -= int(ideal[i])
            for i in sorted(free, key=lambda i: (int(ideal[i]) - ideal[i], i))[:left]:
                out[i] += 1
            left = 0
    return out


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_equals_exact_fractions(data):
    parts, rows = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3))
    least = data.draw(st.integers(0, 3))
    cap = data.draw(st.lists(st.integers(least, 40), min_size=parts, max_size=parts))
    if data.draw(st.booleans()):
        cap = [cap[0]] * parts
    total = data.draw(st.integers(least * parts, sum(cap)))
    numbers = st.lists(st.integers(0, 12) | st.integers(0, 10**6), min_size=parts, max_size=parts)
    weights = [data.draw(numbers) for _ in range(rows)]
    limit = cap[0] if len(set(cap)) == 1 else torch.tensor(cap)
    got = largest_remainder(torch.tensor(weights, dtype=torch.float64), total, limit, least)
    assert got.dtype == torch.long
    assert got.tolist() == [reference(w, total, cap, least) for w in weights]


def test_ties_go_to_the_lower_index_and_scale_does_not_matter():
    for scale in (1.0, 1e-30, 1e30):
        w = scale * torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0], [0, 5, 0, 0]])
        assert largest_remainder(w, 6, 4).tolist() == [[2, 2, 1, 1], [2, 2, 1, 1], [1, 4, 1, 0]]


def test_the_operations_depend_on_shapes_only_and_nothing_is_read_back():
    counts = []
    for seed in range(3):
        w = torch.rand(4, 32, generator=torch.Generator().manual_seed(seed)) ** (1 + 9 * seed)
        with Watch() as watch:
            got = largest_remainder(w, 627, 196, 2)
        assert watch.waits == [] and got.sum(1).tolist() == [627] * 4 and int(got.min()) >= 2
        counts.append(watch.total)
    assert len(set(counts)) == 1


@pytest.mark.parametrize(("total", "cap", "least"), [(21, 10, 0), (3, 10, 2), (4, 1, 2)])
def test_what_cannot_be_is_named(total, cap, least):
    with pytest.raises(BudgetError, match=f"share {total} over 2 parts"):
        largest_remainder(torch.ones(1, 2), total, cap, least)
