"""Spectral entropy of a token's heads in one program a token: its H x H Gram matrix never leaves the chip.

No LAPACK and no batched eigensolver: either the same Chebyshev traces as the reference, or eigenvalues by Jacobi's
method in parallel order (Brent and Luk, 1985), H / 2 rotations at once as one matrix product.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..entropy import ROUNDING, SOLVERS, entropy_series
from ..similarity import TINY
from .shared import pow2

HEADS = 64
"""The most heads whose matrices fit."""

SWEEPS = 8
"""Of Jacobi's method; it converges quadratically, and 64 rows need seven to reach float32."""


@triton.jit
def _gram(
    q, heads, width, normalize, q_h, q_d,
    ROUND: tl.constexpr, SMALL: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """(H, H) covariance of one token's rows, centred, at unit length with `normalize`; zero beyond `heads`."""
    h = tl.arange(0, H)
    d = tl.arange(0, D)
    gram = tl.zeros([H, H], tl.float32)
    common = tl.zeros([], tl.float32)
    for first in range(0, width, D):
        there = (h < heads)[:, None] & (first + d < width)[None, :]
        x = tl.load(q + h[:, None] * q_h + (first + d)[None, :] * q_d, mask=there, other=0.0).to(tl.float32)
        mean = tl.sum(x, 0) / heads
        common += tl.sum(mean * mean, 0)
        x = tl.where(there, x - mean[None, :], 0.0)
        gram = tl.dot(x, tl.trans(x), gram, input_precision="ieee")
    eye = h[:, None] == h[None, :]
    size = tl.sum(tl.where(eye, gram, 0.0), 1)
    zero = size <= (common + tl.sum(size, 0) / heads) * ROUND * ROUND
    scale = tl.where(normalize != 0, 1.0 / tl.sqrt(tl.maximum(size, SMALL * SMALL)), 1.0)
    scale = tl.where(zero, 0.0, scale)
    return gram * scale[:, None] * (scale / heads)[None, :]


@triton.jit
def _trace(x, H: tl.constexpr):
    h = tl.arange(0, H)
    return tl.sum(tl.sum(tl.where(h[:, None] == h[None, :], x, 0.0), 1), 0)


@triton.jit
def _total(x):
    return tl.sum(tl.sum(x, 1), 0)


@triton.jit
def _chebyshev(
    q, out, series, tokens, heads, width, normalize, terms, q_s, q_h, q_n, q_d,
    ROUND: tl.constexpr, SMALL: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    image, token = (tl.program_id(0) // tokens).to(tl.int64), tl.program_id(0) % tokens
    gram = _gram(q + image * q_s + token * q_n, heads, width, normalize, q_h, q_d, ROUND, SMALL, H, D)
    h = tl.arange(0, H)
    one = tl.where((h[:, None] == h[None, :]) & (h < heads)[:, None], 1.0, 0.0)
    size = tl.maximum(tl.sqrt(_total(gram * gram)), SMALL)
    x = gram / size
    square = tl.dot(x, x, input_precision="ieee")
    tighter = tl.maximum(tl.sqrt(tl.sqrt(_total(square * square))), SMALL)
    bound = size * tighter
    first = 2 * x / tighter - one  # the spectrum in [-1, 1]
    before, now = one, first
    lead = _trace(first, H)
    total = tl.load(series) * heads + tl.load(series + 1) * lead
    for i in range(1, terms + 1):  # tr T_2i = 2 <T_i, T_i> - tr T_0, tr T_2i-1 = 2 <T_i, T_i-1> - tr T_1
        if i > 1:
            later = 2 * tl.dot(first, now, input_precision="ieee") - before
            before, now = now, later
            total += tl.load(series + 2 * i - 1) * (2 * _total(now * before) - lead)
        total += tl.load(series + 2 * i) * (2 * _total(now * now) - heads)
    mass = _trace(gram, H)
    entropy = tl.where(mass > 0, bound * total - tl.log(bound) * mass, 0.0)
    tl.store(out + tl.program_id(0), entropy)


@triton.jit
def _jacobi(
    q, out, tokens, heads, width, normalize, sweeps, q_s, q_h, q_n, q_d,
    ROUND: tl.constexpr, SMALL: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    image, token = (tl.program_id(0) // tokens).to(tl.int64), tl.program_id(0) % tokens
    a = _gram(q + image * q_s + token * q_n, heads, width, normalize, q_h, q_d, ROUND, SMALL, H, D)
    h = tl.arange(0, H)
    eye = h[:, None] == h[None, :]
    for turn in range(sweeps * (H - 1)):
        # A round of a tournament: i meets (turn - i) mod (H - 1), whoever would meet itself meets the last.
        met = (turn % (H - 1) - h + H - 1) % (H - 1)
        spare = ((turn % (H - 1)) * (H // 2)) % (H - 1)
        partner = tl.where(h == H - 1, spare, tl.where(met == h, H - 1, met))
        pair = h[None, :] == partner[:, None]
        own = tl.sum(tl.where(eye, a, 0.0), 1)
        other = tl.sum(tl.where(pair, tl.sum(tl.where(eye, a, 0.0), 0)[None, :], 0.0), 1)
        across = tl.sum(tl.where(pair, a, 0.0), 1)
        # Both of a pair find the same angle with opposite signs.
        theta = (other - own) / tl.where(across == 0, 1.0, 2 * across)
        sign = tl.where(theta > 0, 1.0, tl.where(theta < 0, -1.0, tl.where(h < partner, 1.0, -1.0)))
        large = tl.minimum(tl.abs(theta), 1e18)  # its square is still a float32
        tangent = tl.where(across == 0, 0.0, sign / (large + tl.sqrt(large * large + 1)))
        cosine = 1.0 / tl.sqrt(tangent * tangent + 1)
        turned = tl.where(eye, cosine[:, None], tl.where(pair, (tangent * cosine)[:, None], 0.0))
        a = tl.dot(tl.trans(turned), tl.dot(a, turned, input_precision="ieee"), input_precision="ieee")
    sigma = tl.sum(tl.where(eye, a, 0.0), 1)
    terms = tl.where(sigma > 0, -sigma * tl.log(tl.maximum(sigma, 1e-37)), 0.0)
    tl.store(out + tl.program_id(0), tl.sum(terms, 0))


def matrix_entropy(
    q: Tensor,
    normalize: bool = True,
    solver: str = "eigvalsh",
    terms: int = 8,
    block_bytes: int | None = None,
) -> Tensor:
    """As the reference, up to `HEADS` heads; nothing is made in blocks."""
    s, heads, n, width = q.shape
    if heads > HEADS or solver not in SOLVERS:
        return NotImplemented
    out = torch.empty(s, n, device=q.device)
    side = pow2(heads, 16)
    sizes = {"ROUND": ROUNDING, "SMALL": TINY, "H": side, "D": pow2(min(width, 64), 16)}
    if solver == "chebyshev":
        terms = max(2, terms)
        series = _series(2 * terms, q.device)
        _chebyshev[(s * n,)](
            q, out, series, n, heads, width, int(normalize), terms, *q.stride(), **sizes, num_warps=side // 16
        )
    else:
        _jacobi[(s * n,)](
            q, out, n, heads, width, int(normalize), SWEEPS, *q.stride(), **sizes, num_warps=side // 16
        )
    return out


@lru_cache(maxsize=16)
def _series(degree: int, device: torch.device) -> Tensor:
    """The polynomial's coefficients, copied to the device once."""
    return torch.tensor(entropy_series(degree), dtype=torch.float32, device=device)
