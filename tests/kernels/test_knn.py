"""Lists of similar tokens and sums over them, in blocks of any size."""

from __future__ import annotations

import pytest
import torch

from tokenprune.kernels import BLOCK_BYTES, unit
from tokenprune.kernels.knn import best_list, listed_sums, most_similar
from tokenprune.kernels.outliers import fill_evenly, upper_outliers

from ..methods.watch import Watch


@pytest.mark.parametrize("block_bytes", [1, 2000, BLOCK_BYTES])
def test_lists_equal_a_loop_with_ties_to_the_lower_index(block_bytes):
    x = unit(torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0)))
    x[:, 5] = x[:, 2]
    allowed = torch.tensor([[1, 1, 1, 0, 1, 1, 0, 1, 1], [0, 0, 1, 0, 0, 1, 0, 0, 0]]).bool()
    index, cosine = most_similar(x[:, [0, 2]], x, allowed, 4, block_bytes)
    for s in range(2):
        for k, query in enumerate((0, 2)):
            open_ = [j for j in range(9) if allowed[s, j]]
            alike = {j: float(x[s, query] @ x[s, j]) for j in open_}
            alike[5] = alike[2]
            wanted = sorted(open_, key=lambda j: (-alike[j], j))[:4]
            real = int((cosine[s, k] > -float("inf")).sum())
            assert real == len(wanted) and index[s, k, :real].tolist() == wanted


def test_no_block_of_similarities_is_larger_than_asked():
    n, limit = 1500, 2**20
    x = unit(torch.randn(1, n, 2))
    with Watch() as watch:
        index, _ = most_similar(x, x, torch.ones(1, n, dtype=torch.bool), 3, limit)
    assert watch.largest <= limit < 4 * n * n and index.shape == (1, n, 3)


def test_sums_and_owners_equal_loops():
    g = torch.Generator().manual_seed(1)
    values, weight = torch.randn(2, 7, 3, generator=g), torch.rand(2, 2, 4, generator=g)
    index = torch.tensor([[[0, 3, 4, 6], [4, 1, 0, 2]]] * 2)
    sums = listed_sums(values, index, weight)
    score = torch.rand(2, 2, 4, generator=g)
    score[0, 0, 1] = -float("inf")
    owner = best_list(index, score, torch.tensor([[5, 3], [5, 3]]), 7)
    for s in range(2):
        offers = {j: [] for j in range(7)}
        for k in range(2):
            total = sum(weight[s, k, j] * values[s, index[s, k, j]] for j in range(4))
            torch.testing.assert_close(sums[s, k], total)
            for j in range(4):
                if score[s, k, j] > -float("inf"):
                    offers[int(index[s, k, j])].append((-float(score[s, k, j]), (5, 3)[k]))
        assert owner[s].tolist() == [min(o)[1] if o else -1 for o in offers.values()]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 9, 40])
def test_there_are_never_more_outliers_than_said(n):
    for tail in range(n + 1):
        a = (torch.arange(n) >= n - tail).float()[None]
        outlier, most = upper_outliers(a)
        assert 1 <= outlier.sum() <= most


@pytest.mark.parametrize("total", [2, 3, 5, 7, 10])
def test_a_budget_is_filled_evenly(total):
    chosen = torch.zeros(2, 10, dtype=torch.bool)
    chosen[0, [3, 4]] = True
    filled = fill_evenly(chosen, total)
    for s in range(2):
        others = [i for i in range(10) if not chosen[s, i]]
        missing = total - int(chosen[s].sum())
        wanted = {others[i * len(others) // missing] for i in range(missing)}
        assert set(filled[s].nonzero().flatten().tolist()) == wanted | set(
            chosen[s].nonzero().flatten().tolist()
        )
