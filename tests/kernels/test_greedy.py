"""Max-min selection and determinantal point processes against plain loops and determinants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune import kernels
from tokenprune.kernels.dpp import greedy_dpp
from tokenprune.kernels.gram import Gram
from tokenprune.kernels.maxmin import max_min

from ..methods.greedy_reference import determinants, farthest
from ..methods.watch import Watch

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block_bytes", [1, 4 * 2 * 9 * 4, 2**20])
def test_rows_of_the_gram_matrix(block_bytes):
    x = draw(2, 9, 4)
    gram, whole = Gram(x, block_bytes), torch.einsum("snc,smc->snm", x, x)
    assert (gram.whole is None) == (block_bytes < 2**20)
    for i in range(9):
        got = gram.row(torch.tensor([[i], [8 - i]]))
        torch.testing.assert_close(got, torch.stack([whole[0, i], whole[1, 8 - i]]))
    others = whole.masked_fill(torch.eye(9, dtype=torch.bool), -math.inf).amax(2)
    torch.testing.assert_close(gram.nearest(), others)
    torch.testing.assert_close(gram.diagonal(), whole.diagonal(0, 1, 2))
    assert Gram(x[:, :1], block_bytes).nearest().tolist() == [[-math.inf]] * 2


@quick
@given(st.integers(1, 14), st.integers(1, 5), st.data(), st.booleans(), st.sampled_from([1, 2**20]))
def test_max_min_equals_a_loop(n, width, data, weighted, block_bytes):
    count, seed = data.draw(st.integers(1, n)), data.draw(st.integers(0, 10**6))
    x, weight = draw(2, n, width, seed=seed), torch.rand(2, n, generator=torch.Generator().manual_seed(seed))
    late = torch.arange(n) % data.draw(st.integers(2, 5)) == 1
    got = max_min(kernels.unit(x), count, weight if weighted else None, late, block_bytes)
    for i in range(2):
        expected, gain, close = farthest(x[i], count, weight[i] if weighted else None, late)
        assume(close > 1e-5)
        assert got.index[i].tolist() == expected
        np.testing.assert_allclose(got.gain[i].numpy(), gain, atol=1e-5)


def test_max_min_on_the_vector_of_the_specification():
    """x_nd = cos(.7n + 1.3d + .4nd) of frame 3 of the toy clip, attention (.1, .2, .05, .3, .15, .2): 4, 5, 3."""
    n, d = np.arange(6)[:, None], np.arange(4)[None]
    x = np.cos(0.7 * n + 1.3 * d + 0.4 * n * d)
    x[2:4] += 1.2 * 3 * np.sin(0.9 * 3 + 0.5 * n[2:4] + 1.1 * d)
    x[5] = (2, -1, 0.5, 1)
    attention = torch.tensor([[0.1, 0.2, 0.05, 0.3, 0.15, 0.2]])
    unit = kernels.unit(torch.tensor(x, dtype=torch.float32)[None])
    assert max_min(unit, 3, attention).index.tolist() == [[4, 5, 3]]


def test_equal_points_are_taken_in_order_and_the_late_ones_last():
    x = kernels.unit(torch.ones(2, 6, 3))
    late = torch.tensor([True, False, False, True, False, False])
    assert max_min(x, 6).index.tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    assert max_min(x, 6, last=late).index.tolist() == [[1, 2, 4, 5, 0, 3]] * 2
    assert max_min(x, 3, torch.zeros(2, 6)).index.tolist() == [[0, 1, 2]] * 2
    apart = kernels.unit(draw(2, 6, 3))
    for weight in (None, torch.tensor([1e6, 0, 0, 1e9, 0, 0]).expand(2, -1)):
        order = max_min(apart, 6, weight, late).index
        assert set(order[0, :4].tolist()) == {1, 2, 4, 5} and sorted(order[1].tolist()) == list(range(6))


def test_max_min_covers_within_twice_the_best_radius():
    """Farthest points are a 2-approximation of k-center in a metric: chords of unit vectors, all subsets tried."""
    from itertools import combinations

    x = kernels.unit(draw(1, 11, 3, seed=5))
    chord = torch.cdist(x.double(), x.double())[0]
    for k in (1, 2, 3, 4):
        radius = chord[max_min(x, k).index[0]].amin(0).max()
        best = min(chord[list(c)].amin(0).max() for c in combinations(range(11), k))
        assert radius <= 2 * best + 1e-6


@quick
@given(st.integers(1, 12), st.integers(1, 14), st.data(), st.sampled_from([1, 2**20]))
def test_dpp_equals_the_determinants(n, width, data, block_bytes):
    count, seed = data.draw(st.integers(1, n)), data.draw(st.integers(0, 10**6))
    x = kernels.unit(draw(2, n, width, seed=seed))
    quality = torch.rand(2, n, generator=torch.Generator().manual_seed(seed)) + 0.1
    quality[:, :: data.draw(st.integers(2, 6))] *= 10 ** data.draw(st.integers(-3, 3))
    got = greedy_dpp(x, quality.log(), count, block_bytes)
    for i in range(2):
        expected, close = determinants(x[i], quality[i], count)
        assume(close > 1e-3)
        assert got[i].tolist() == expected


def test_dpp_beyond_its_rank_goes_by_quality_and_stays_finite():
    x = kernels.unit(draw(1, 20, 3, seed=2))
    quality = torch.linspace(0.2, 1, 20)[None]
    order = greedy_dpp(x, quality.log(), 20)[0].tolist()
    assert sorted(order) == list(range(20))
    assert order[3:] == sorted(order[3:], reverse=True), "three directions explain all"
    huge = greedy_dpp(x, 1e6 * quality, 20)[0].tolist()
    assert huge == list(range(19, -1, -1)), "no overflow where quality is all that counts"
    assert greedy_dpp(x, torch.full((1, 20), -math.inf), 20)[0].tolist() == list(range(20))
    copies = greedy_dpp(kernels.unit(torch.ones(2, 5, 4)), torch.zeros(2, 5), 5)
    assert copies.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("select", [
    lambda x, k: max_min(x, k, block_bytes=2**20).index,
    lambda x, k: greedy_dpp(x, torch.rand(x.shape[:2], generator=torch.Generator().manual_seed(0)), k, 2**20),
])  # fmt: skip
def test_many_tokens_stay_in_blocks(select):
    x = kernels.unit(draw(2, 900, 8))
    with Watch() as watch:
        few = select(x, 12)
    assert watch.largest <= 2**20 < 2 * 4 * 900 * 900 and watch.waits == []
    more = select(x, 30)
    assert torch.equal(more[:, :12], few), "nested"
    alone = select(x[:1], 30)
    assert torch.equal(alone, more[:1])
