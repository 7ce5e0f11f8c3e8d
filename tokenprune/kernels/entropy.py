"""Spectral entropy of small covariances: of each token over its heads, of each layer over its tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import TokenPruneError
from .similarity import BLOCK_BYTES, TINY
from .switch import with_triton

SOLVERS = ("eigvalsh", "chebyshev")

CPU_BLOCK_BYTES = 4 * 2**20
"""On a CPU smaller blocks pay: the polynomial's matrices stay in the cache."""

ROUNDING = 1e-6
"""A centred row below this share of the rows' usual length is rounding, not direction: it counts as zero."""


@with_triton("entropy")
@torch.no_grad()
def matrix_entropy(
    q: Tensor,
    normalize: bool = True,
    solver: str = "eigvalsh",
    terms: int = 8,
    block_bytes: int | None = None,
) -> Tensor:
    """(S, H, N, d) head vectors of each token -> (S, N) float32: -sum_t sigma_t ln sigma_t.

    sigma are the eigenvalues of G = M M^T / H (H x H), M (H, d) the token's head vectors less their mean, each row
    at unit length with `normalize`. G has the non-zero spectrum of the d x d covariance M^T M / H. Rows that are
    zero after centring stay zero, so heads that all agree score 0, and eigenvalues below zero count as zero.

    Queries are centred before the Gram and scaled after it: centring the Gram alone would save little and lose
    everything where heads share a large mean. solver="chebyshev" replaces the eigenvalues of each G by the trace
    of a polynomial of degree 2 `terms`, made of matrix products alone (no LAPACK, no wait for a device).

    Tokens come in blocks whose number is a function of the shapes only; no scratch tensor exceeds `block_bytes`,
    by default 64 MiB, on a CPU 4 MiB.
    """
    if solver not in SOLVERS:
        raise TokenPruneError(f"solver={solver!r}: {' or '.join(map(repr, SOLVERS))}")
    s, heads, n, width = q.shape
    if block_bytes is None:
        block_bytes = CPU_BLOCK_BYTES if q.device.type == "cpu" else BLOCK_BYTES
    step = max(1, block_bytes // (4 * s * heads * max(width, heads)))
    grams = (_gram(q[:, :, i : i + step].transpose(1, 2), normalize) for i in range(0, n, step))
    scores = [_spectral_entropy(gram, solver, terms).view(s, -1) for gram in grams]
    return torch.cat(scores, 1) if scores else q.new_zeros(s, 0, dtype=torch.float32)


def _gram(heads_of: Tensor, normalize: bool) -> Tensor:
    """(S, n, H, d), of any strides -> (S n, H, H) covariance of the rows, centred, in float32."""
    heads = heads_of.shape[2]
    mean = heads_of.mean(2, keepdim=True, dtype=torch.float32)
    x = torch.empty(heads_of.shape, device=heads_of.device)
    torch.sub(
        heads_of, mean, out=x
    )  # converts, centres and lays the heads of a token side by side in one pass
    x, mean = x.flatten(0, 1), mean.flatten(0, 1)
    gram = torch.bmm(x, x.transpose(1, 2))
    size = gram.diagonal(dim1=1, dim2=2)
    zero = size <= (mean.square().sum(2) + size.mean(1, keepdim=True)) * ROUNDING**2
    scale = torch.where(zero, 0.0, size.clamp_min(TINY**2).rsqrt() if normalize else 1.0)
    return gram * scale.unsqueeze(2) * (scale / heads).unsqueeze(1)


def _spectral_entropy(gram: Tensor, solver: str, terms: int) -> Tensor:
    """(G, H, H) positive semi-definite -> (G,) -sum sigma ln sigma."""
    if solver == "chebyshev":
        return _chebyshev_entropy(gram, terms)
    return torch.special.entr(torch.linalg.eigvalsh(gram).clamp_min(0)).sum(1)


@lru_cache(maxsize=16)
def entropy_series(degree: int) -> tuple[float, ...]:
    """Chebyshev coefficients of the polynomial that meets -x ln x at the `degree` + 1 Lobatto points of [0, 1]."""
    values = []
    for j in range(degree + 1):
        x = (1 + math.cos(math.pi * j / degree)) / 2
        values.append(-x * math.log(x) if x > 1e-15 else 0.0)  # both ends are points: exact there
    values[0], values[-1] = values[0] / 2, values[-1] / 2
    out = []
    for k in range(degree + 1):
        c = 2 / degree * sum(v * math.cos(math.pi * j * k / degree) for j, v in enumerate(values))
        out.append(c / 2 if k in (0, degree) else c)
    return tuple(out)


def _chebyshev_entropy(gram: Tensor, terms: int) -> Tensor:
    """tr f(G), f(x) = -x ln x, from T_1 .. T_terms: tr T_{i+j} = 2 <T_i, T_j> - tr T_{|i-j|} gives twice the degree.

    The spectrum is first brought into [0, 1] by b = (tr G^4)^(1/4), which is at least the largest eigenvalue and
    near it: f(G) = b f(G / b) - G ln b.
    """
    terms = max(2, terms)
    series = entropy_series(2 * terms)
    size = gram.square().sum((1, 2)).sqrt().clamp_min(TINY)  # >= the largest eigenvalue; keeps G^4 in range
    x = gram / size[:, None, None]
    square = torch.bmm(x, x)
    tighter = square.square().sum((1, 2)).sqrt().sqrt().clamp_min(TINY)
    x, bound = x / tighter[:, None, None], size * tighter
    one = torch.eye(gram.shape[1], device=gram.device)
    first = 2 * x - one  # the spectrum in [-1, 1]
    second = (8 / tighter.square())[:, None, None] * square - 8 * x + one
    heads = float(gram.shape[1])
    polys, trace = [first, second], [torch.full_like(bound, heads), _trace(first), _trace(second)]
    for _ in range(terms - 2):
        polys.append(torch.baddbmm(polys[-2], first, polys[-1], beta=-1, alpha=2))
        trace.append(_trace(polys[-1]))
    top = polys[-1].flatten(1)
    for k in range(terms + 1, 2 * terms + 1):
        trace.append(2 * torch.linalg.vecdot(top, polys[k - terms - 1].flatten(1)) - trace[2 * terms - k])
    total = sum(c * t for c, t in zip(series, trace))
    mass = _trace(gram)
    return torch.where(mass > 0, bound * total - bound.log() * mass, 0.0)


def _trace(x: Tensor) -> Tensor:
    return x.diagonal(dim1=1, dim2=2).sum(1)


def token_entropy(x: Tensor, top: int | None = None, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """(N, C) states of one image's tokens in one layer -> () float32, the layer's entropy S_l.

    Centred over tokens, rows at unit length, covariance over tokens (1 / N): -sum of sigma ln sigma over the `top`
    largest eigenvalues (all by default), found in the smaller of the N x N and C x C matrices. Offline work: the
    matrix itself is the largest thing in memory, what it is made from comes in blocks.
    """
    n, width = x.shape
    mean = x.mean(0, dtype=torch.float32)
    if n <= width:  # rows against rows, summed over blocks of columns
        step = max(1, block_bytes // (4 * max(n, 1)))
        gram = torch.zeros(n, n, device=x.device)
        for i in range(0, width, step):
            block = x[:, i : i + step].float() - mean[i : i + step]
            gram.addmm_(block, block.T)
        scale = _unit_scale(gram.diagonal(), mean)
        gram = gram * scale.unsqueeze(1) * scale
    else:  # columns against columns, summed over blocks of rows
        step = max(1, block_bytes // (4 * max(width, 1)))
        gram = torch.zeros(width, width, device=x.device)
        for i in range(0, n, step):
            block = x[i : i + step].float() - mean
            block = block * _unit_scale(block.square().sum(1), mean).unsqueeze(1)
            gram.addmm_(block.T, block)
    sigma = torch.linalg.eigvalsh(gram / n).clamp_min(0)
    if top is not None:
        sigma = sigma[-top:] if top > 0 else sigma[:0]
    return torch.special.entr(sigma).sum()


def _unit_scale(size: Tensor, mean: Tensor) -> Tensor:
    """Factors that bring rows of squared length `size` to one; zero for those that are rounding."""
    zero = size <= mean.square().sum() * ROUNDING**2
    return torch.where(zero, 0.0, size.clamp_min(TINY**2).rsqrt())


def collapse_layer(curve: Sequence[float] | Tensor) -> int:
    """Entropies S_0 .. S_{L-1} of the layers -> the layer to prune before: 1 + argmax over l < L / 3 of S_l - S_{l+1}.

    Our rule; the authors read the layer off a plot. Equal drops go to the earlier layer.
    """
    values = [float(v) for v in curve]
    if len(values) < 2 or not all(map(math.isfinite, values)):
        raise TokenPruneError(f"an entropy curve needs at least two layers and finite values, not {values}")
    drops = [a - b for a, b in itertools.pairwise(values)][: math.ceil(len(values) / 3)]
    return 1 + drops.index(max(drops))
