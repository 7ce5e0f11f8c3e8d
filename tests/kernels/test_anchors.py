"""Density-peak scores, nearest anchors, runs and sums against plain loops."""

from __future__ import annotations

import math

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenprune.kernels import unit
from tokenprune.kernels.anchors import nearest_anchor, peak_scores, pour, runs
from tokenprune.kernels.clusters import peak_order

from ..methods.watch import Watch

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@quick
@given(st.integers(1, 14), st.integers(1, 6), st.integers(0, 10**6))
def test_peaks_of_a_masked_group_are_those_of_its_points_alone(m, near, seed):
    g = torch.Generator().manual_seed(seed)
    x, valid = torch.randn(3, m, 5, generator=g) + 3, torch.rand(3, m, generator=g) < 0.7
    got, blocks = peak_scores(x, ~valid, near), peak_scores(x, ~valid, near, block_bytes=1)
    for i in range(3):
        own = valid[i].nonzero()[:, 0]
        assert (got[i][~valid[i]] == -math.inf).all()
        if equally_dense(x[i, own], near):
            continue  # as two that are each other's nearest: rounding decides which comes first
        torch.testing.assert_close(blocks[i], got[i])
        if len(own):
            alone = own[peak_order(x[i, own][None], near)[0]]
            finite = got[i][own].sort().values[:-1].double()
            if len(finite) > 1 and finite.diff().min() < 1e-4:
                continue  # float32's to decide
            assert got[i].argsort(descending=True, stable=True)[: len(own)].tolist() == alone.tolist()


def equally_dense(x, near):
    """Whether two of the points (M, D) have the same mean distance from their nearest, but none at all."""
    if near < 2 or len(x) < 2:
        return False
    nearest = torch.cdist(x.double(), x.double()).square().sort(1).values[:, :near]
    return bool(nearest.mean(1).sort().values.diff().min() < 1e-6)


@quick
@given(st.integers(1, 16), st.integers(0, 5), st.integers(0, 10**6))
def test_the_nearest_anchor_of_the_same_group(n, most, seed):
    g = torch.Generator().manual_seed(seed)
    x, group = unit(torch.randn(2, n, 4, generator=g)), torch.randint(0, 3, (2, n), generator=g)
    anchor = torch.zeros(2, n, dtype=torch.bool)
    for i in range(2):
        anchor[i, torch.randperm(n, generator=g)[: max(0, most - i)]] = True
    got = nearest_anchor(x, anchor, most, group)
    assert torch.equal(nearest_anchor(x, anchor, most, group, block_bytes=1), got)
    for i in range(2):
        for j in range(n):
            near = {a: float(x[i, j].double() @ x[i, a].double()) for a in range(n)
                    if anchor[i, a] and group[i, a] == group[i, j]}  # fmt: skip
            best = max(near.values(), default=0)
            assert got[i, j] == -1 if not near else near[int(got[i, j])] >= best - 1e-6


def test_pouring_is_a_weighted_sum():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 3, generator=g, requires_grad=True)
    owner = torch.tensor([[0, 0, 2, -1, 2, 5], [1, 1, 1, 3, -1, -1]])
    weight = torch.rand(2, 6, generator=g)
    got = pour(x, owner, weight)
    for i in range(2):
        for j in range(6):
            expected = sum((weight[i, k] * x[i, k] for k in range(6) if owner[i, k] == j), torch.zeros(3))
            torch.testing.assert_close(got[i, j], expected)
    got.sum().backward()
    assert torch.equal(x.grad != 0, (owner >= 0).unsqueeze(2).expand(-1, -1, 3))
    assert pour(x.half(), owner, weight).dtype == torch.float16


@quick
@given(st.integers(1, 40), st.integers(0, 10**6))
def test_runs_lead_to_their_first_token(n, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, n, 2, generator=g)
    before = torch.arange(n) - 1
    if n > 3:
        before[n // 2] = -1
    got = runs(x, before, 0.0)
    for i in range(2):
        head = 0
        for j in range(n):
            alike = torch.cosine_similarity(x[i, j].double(), x[i, before[j]].double(), dim=0)
            head = head if before[j] >= 0 and alike >= 0 else j
            assert got[i, j] == head
    assert runs(torch.ones(1, n, 2), torch.arange(n) - 1, 0.5).tolist() == [[0] * n]


def test_no_block_above_its_limit():
    x, valid = torch.randn(4, 300, 4), torch.ones(4, 300, dtype=torch.bool)
    with Watch() as watch:
        peak_scores(x, ~valid, 4, block_bytes=2**19)
        group = torch.zeros(4, 300, dtype=torch.long)
        nearest_anchor(x, valid, 300, group, block_bytes=2**19)
    assert watch.largest <= 2**19 < 4 * 4 * 300 * 300 and watch.waits == []
