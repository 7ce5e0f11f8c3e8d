"""Spectral entropies against eigenvalues of the full covariance in float64, and the cases worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenprune import kernels
from tokenprune.errors import TokenPruneError
from tokenprune.kernels.entropy import (
    CPU_BLOCK_BYTES,
    collapse_layer,
    entropy_series,
    matrix_entropy,
    token_entropy,
)

from ..methods.watch import Watch

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def reference(q: torch.Tensor, normalize: bool = True) -> torch.Tensor:
    """(S, H, N, d) -> (S, N) float64, token by token, from the d x d covariance of the heads."""
    s, heads, n, _ = q.shape
    out = torch.zeros(s, n, dtype=torch.float64)
    for i in range(s):
        for j in range(n):
            v = q[i, :, j].double()
            least = 1e-6 * v.norm() / heads**0.5
            v = v - v.mean(0)
            if normalize:
                length = v.norm(dim=1, keepdim=True)
                v = torch.where(length > least, v / length.clamp_min(1e-300), 0.0)
            covariance = sum(torch.outer(row, row) for row in v) / heads
            sigma = torch.linalg.eigvalsh(covariance)
            out[i, j] = -sum(x * math.log(x) for x in sigma.tolist() if x > 1e-10)
    return out


def case_e1() -> torch.Tensor:
    """(1, 4, 8, 6)"""
    q = torch.empty(8, 4, 6, dtype=torch.float64)
    for n in range(8):
        for h in range(4):
            for d in range(6):
                wave = math.sin(0.7 * (n + 1) * (h + 1) + 0.9 * d * (h + 1))
                q[n, h, d] = (0.4 + 0.35 * n) * wave + 0.2 * math.cos(d)
    return q.transpose(0, 1)[None]


E1 = [0.787136, 0.563680, 0.784900, 0.746029, 0.725150, 0.751542, 0.416249, 0.768948]


def case_e2() -> torch.Tensor:
    """(1, 4, 5, 3): a, b, c = 0.1 a, d = 3 a, e."""
    x, y, _ = torch.eye(3)
    a, b = torch.stack([x, -x, y, -y]), torch.stack([x, -x, x, -x])
    e = torch.stack([x, -x, 0.1 * y, -0.1 * y])
    return torch.stack([a, b, 0.1 * a, 3 * a, e], 1)[None]


def random_q(seed: int, s=2, heads=6, n=5, width=8, mean=0.0, dtype=torch.float32) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(s, heads, n, width, generator=g, dtype=torch.float64) * torch.rand(
        s, 1, n, 1, generator=g
    )
    return (q + mean * torch.randn(s, 1, n, width, generator=g)).to(dtype)


def test_e1():
    got = matrix_entropy(case_e1())[0] / math.log(4)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor(E1), atol=2e-6, rtol=0)


def test_e2_by_hand():
    paper = matrix_entropy(case_e2())[0] / math.log(4)
    torch.testing.assert_close(paper, torch.tensor([0.5, 0, 0.5, 0.5, 0.5]), atol=1e-6, rtol=0)
    code = matrix_entropy(case_e2(), normalize=False)[0] / math.log(4)
    expected = torch.tensor([0.5, 0.0, 0.0382, -9.7647, 0.2691])
    torch.testing.assert_close(code, expected, atol=5e-5, rtol=0)


@quick
@given(
    st.integers(0, 10**6),
    st.integers(1, 9),
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from([0.0, 1.0, 100.0]),
)
def test_heads_by_heads_equals_width_by_width(seed, heads, width, normalize, mean):
    q = random_q(seed, heads=heads, width=width, mean=mean)
    got, expected = matrix_entropy(q, normalize).double(), reference(q, normalize)
    torch.testing.assert_close(got, expected, atol=1e-5 * max(1.0, mean), rtol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_two_duals_agree_to_a_millionth(normalize):
    q = random_q(3, s=1, heads=32, n=12, width=64)
    torch.testing.assert_close(
        matrix_entropy(q, normalize).double(), reference(q, normalize), atol=3e-6, rtol=1e-6
    )


@pytest.mark.parametrize(("mean", "most"), [(10.0, 1e-5), (100.0, 1e-4), (1000.0, 1e-3)])
def test_a_large_mean_of_the_heads_does_not_cancel(mean, most):
    """Heads that share 1000 times what tells them apart: float32 holds four digits of it, and those count."""
    g = torch.Generator().manual_seed(0)
    q = torch.randn(2, 32, 20, 64, generator=g) + mean * torch.randn(2, 1, 20, 64, generator=g)
    error = (matrix_entropy(q).double() - reference(q)).abs().max()
    assert error < most

    gram = torch.einsum("shnd,sgnd->snhg", q, q)  # centred too late
    row = gram.mean(3, keepdim=True)
    gram = gram - row - row.transpose(2, 3) + row.mean(2, keepdim=True)
    scale = gram.diagonal(dim1=2, dim2=3).clamp_min(1e-12).rsqrt()
    gram = gram * scale.unsqueeze(3) * scale.unsqueeze(2) / 32
    late = torch.special.entr(torch.linalg.eigvalsh(gram).clamp_min(0)).sum(2)
    assert mean < 100 or (late.double() - reference(q)).abs().max() > 100 * error


def rotate(q: torch.Tensor, seed: int) -> torch.Tensor:
    """Rotary embedding, as in the models: token n at position p_n turns the same way in every head."""
    n, width = q.shape[2:]
    position = torch.randint(0, 5000, (n,), generator=torch.Generator().manual_seed(seed)).double()
    angle = position[:, None] * 10000 ** (-torch.arange(0, width, 2).double() / width)
    cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
    half = torch.cat([-q[..., width // 2 :], q[..., : width // 2]], -1)
    return q * cos + half * sin


@quick
@given(st.integers(0, 10**6), st.booleans())
def test_e4_rotary_embedding_changes_nothing(seed, normalize):
    q = random_q(seed, dtype=torch.float64)
    torch.testing.assert_close(
        matrix_entropy(rotate(q, seed), normalize), matrix_entropy(q, normalize), atol=3e-6, rtol=1e-5
    )


@quick
@given(st.integers(0, 10**6))
def test_e4_scale_and_shared_orthogonal_maps_change_nothing(seed):
    q = random_q(seed)
    plain = matrix_entropy(q)
    g = torch.Generator().manual_seed(seed)
    scale = 10 ** (4 * torch.rand(2, 1, 5, 1, generator=g) - 2)
    torch.testing.assert_close(matrix_entropy(q * scale), plain, atol=3e-6, rtol=1e-5)
    turn = torch.linalg.qr(torch.randn(2, 5, 8, 8, generator=g)).Q
    turned = torch.einsum("shnd,snde->shne", q, turn)
    torch.testing.assert_close(matrix_entropy(turned), plain, atol=3e-6, rtol=1e-5)
    assert not torch.allclose(matrix_entropy(q * scale, False), matrix_entropy(q, False), atol=1e-3)


@pytest.mark.parametrize("solver", ["eigvalsh", "chebyshev"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("heads", [1, 2, 7, 28, 32])
def test_identical_heads_and_a_single_one_score_zero(solver, normalize, heads):
    one = 50 * random_q(1, heads=1, n=40, width=16)
    score = matrix_entropy(one.expand(-1, heads, -1, -1), normalize, solver)
    assert torch.equal(score, torch.zeros(2, 40))
    assert torch.equal(matrix_entropy(torch.zeros(1, heads, 3, 4), normalize, solver), torch.zeros(1, 3))


@pytest.mark.parametrize("normalize", [True, False])
def test_repeated_heads_change_nothing(normalize):
    """Keys under grouped attention: repeat_kv repeats heads."""
    q = random_q(5)
    again = matrix_entropy(q.repeat_interleave(3, 1), normalize)
    torch.testing.assert_close(again, matrix_entropy(q, normalize), atol=2e-6, rtol=1e-5)


def test_one_row_that_is_zero_leaves_the_others():
    q = random_q(2, heads=5)
    q[:, 4] = q[:, :4].mean(1)
    torch.testing.assert_close(matrix_entropy(q).double(), reference(q), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("solver", ["eigvalsh", "chebyshev"])
@pytest.mark.parametrize("block_bytes", [1, 4 * 2 * 6 * 8 * 2, 2**26])
def test_blocks_change_nothing(solver, block_bytes):
    q = random_q(7, n=9)
    expected = matrix_entropy(q, solver=solver)
    torch.testing.assert_close(matrix_entropy(q, solver=solver, block_bytes=block_bytes), expected)
    alone = matrix_entropy(q[1:], solver=solver)
    torch.testing.assert_close(alone, expected[1:])
    assert matrix_entropy(q[:, :, :0]).shape == (2, 0)


@pytest.mark.parametrize("solver", ["eigvalsh", "chebyshev"])
def test_no_scratch_tensor_above_the_limit(solver):
    assert CPU_BLOCK_BYTES < kernels.BLOCK_BYTES == 64 * 2**20
    q = torch.randn(1, 8, 9000, 32, dtype=torch.bfloat16)
    for limit in (CPU_BLOCK_BYTES, 2**20):
        with Watch() as watch:
            scores = matrix_entropy(q, solver=solver, block_bytes=limit)
        assert scores.shape == (1, 9000) and 0.9 * limit <= watch.largest <= limit
        assert watch.waits == []


def test_half_precision_is_computed_in_float32():
    q = random_q(8).bfloat16()
    torch.testing.assert_close(matrix_entropy(q), matrix_entropy(q.float()))


def structured(seed: int) -> torch.Tensor:
    """(1, 32, 576, 128) queries with common directions, a mean of their own and sizes that differ."""
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(1, 32, 576, 6, generator=g) @ torch.randn(6, 128, generator=g)
    q = 0.3 * common + torch.randn(1, 32, 576, 128, generator=g)
    return q * (0.5 + torch.rand(1, 1, 576, 1, generator=g)) + torch.randn(1, 1, 576, 128, generator=g)


@pytest.mark.parametrize(("terms", "rho", "same"), [(6, 0.9995, 188), (8, 0.9998, 189), (16, 0.9999, 191)])
def test_the_polynomial_ranks_alike(terms, rho, same):
    q = structured(0)
    exact, close = matrix_entropy(q)[0], matrix_entropy(q, solver="chebyshev", terms=terms)[0]
    ranks = torch.stack([x.argsort().argsort().double() for x in (exact, close)])
    assert torch.corrcoef(ranks)[0, 1] >= rho
    assert len(set(exact.topk(192).indices.tolist()) & set(close.topk(192).indices.tolist())) >= same
    assert (exact - close).abs().max() < 0.05 * exact.std()


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_polynomial_without_normalisation(scale):
    q = structured(1) * scale
    exact = matrix_entropy(q, False)
    error = (matrix_entropy(q, False, "chebyshev", terms=8) - exact).abs().max()
    assert error < 2e-3 * exact.abs().max()


def test_the_series_is_exact_at_its_points():
    for degree in (4, 9, 16):
        series = entropy_series(degree)
        for j in range(degree + 1):
            angle = math.pi * j / degree
            x = (1 + math.cos(angle)) / 2
            wanted = -x * math.log(x) if x > 1e-15 else 0.0
            assert sum(c * math.cos(k * angle) for k, c in enumerate(series)) == pytest.approx(
                wanted, abs=1e-12
            )


def test_unknown_solver():
    with pytest.raises(TokenPruneError, match="solver='svd'"):
        matrix_entropy(torch.zeros(1, 2, 3, 4), solver="svd")


def layer_reference(x: torch.Tensor, top: int | None = None) -> float:
    x = x.double() - x.double().mean(0)
    x = x / x.norm(dim=1, keepdim=True)
    sigma = sorted(torch.linalg.eigvalsh(x.T @ x / len(x)).clamp_min(1e-12).tolist(), reverse=True)
    return -sum(v * math.log(v) for v in sigma[:top])


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (20, 20)])
@pytest.mark.parametrize("top", [None, 3, 10**6])
@pytest.mark.parametrize("block_bytes", [1, 500, 2**26])
def test_entropy_of_a_layer(shape, top, block_bytes):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4)) + 3
    got = float(token_entropy(x, top, block_bytes))
    assert got == pytest.approx(layer_reference(x, top), abs=1e-5)


def test_entropy_of_a_layer_of_equal_and_of_different_tokens():
    assert float(token_entropy(torch.ones(5, 3))) == 0.0
    signs = torch.cat([torch.eye(8), -torch.eye(8)])
    assert float(token_entropy(signs)) == pytest.approx(math.log(8), abs=1e-6)
    assert float(token_entropy(signs.half(), top=4)) == pytest.approx(math.log(8) / 2, abs=1e-6)


def test_collapse_layer():
    assert collapse_layer([4.0, 3.9, 3.2, 3.1, 3.0, 2.9, 1.0, 1.0]) == 2, "the largest drop is from 1 to 2"
    assert collapse_layer([4.0, 3.9, 3.8, 3.7, 3.7, 0.0, 0.0]) in (1, 2, 3), "late drops do not count"
    assert collapse_layer([3.0, 2.0, 1.0, 0.0]) == 1, "equal drops go to the earlier layer"
    assert collapse_layer(torch.tensor([2.0, 1.0])) == 1
    assert collapse_layer([1.0, 2.0, 3.0, 4.0]) == 1
    for bad in ([], [1.0], [1.0, float("nan"), 2.0]):
        with pytest.raises(TokenPruneError, match="entropy curve"):
            collapse_layer(bad)
