"""Means over what tokens own, against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenprune.kernels.absorb import centred_mean
from tokenprune.kernels.clusters import group_means

quick = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def owned(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, n) owners, some -1, where every owner owns itself; (2, n, 3) values."""
    g = torch.Generator().manual_seed(seed)
    kept = torch.rand(2, n, generator=g) < 0.4
    owner = torch.full((2, n), -1)
    for i in range(2):
        own = kept[i].nonzero().flatten().tolist()
        for j in range(n):
            free = bool(own) and float(torch.rand((), generator=g)) < 0.8
            owner[i, j] = j if kept[i, j] else own[j % len(own)] if free else -1
    return owner, torch.randn(2, n, 3, generator=g, dtype=torch.float64)


@quick
@given(st.integers(1, 12), st.sampled_from([0.0, 0.3, 0.6, 1.0]), st.integers(0, 10**6))
def test_an_owner_keeps_its_share(n, share, seed):
    owner, x = owned(n, seed)
    got = centred_mean(owner, share)(x)
    for i in range(2):
        for j in (owner[i] == torch.arange(n)).nonzero().flatten().tolist():
            others = [k for k in range(n) if owner[i, k] == j and k != j]
            w = max(1 / (len(others) + 1), share)
            expected = w * x[i, j] + (1 - w) * x[i, others].mean(0) if others else x[i, j]
            torch.testing.assert_close(got[i, j], expected, rtol=1e-5, atol=1e-6)


@quick
@given(st.integers(1, 12), st.integers(0, 10**6))
def test_means_of_all_that_an_owner_has(n, seed):
    owner, x = owned(n, seed)
    owner = torch.where(owner < 0, torch.arange(n), owner)
    got = group_means(x, owner, n, torch.ones(2, n))
    for i in range(2):
        for j in range(n):
            own = x[i][owner[i] == j]
            expected = own.mean(0) if len(own) else torch.zeros(3, dtype=torch.float64)
            torch.testing.assert_close(got[i, j], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_linear_differentiable_and_of_the_dtype_that_came(share):
    merge = centred_mean(torch.tensor([[0, 0, 2, 0]]), share)
    x = torch.randn(1, 4, 2, requires_grad=True)
    torch.testing.assert_close(merge(3 * x), 3 * merge(x))
    merge(x)[:, [0, 2]].sum().backward()
    torch.testing.assert_close(x.grad.sum(1), torch.tensor([[2.0, 2.0]]))  # every mean weighs one in all
    assert merge(x.half()).dtype == torch.float16
