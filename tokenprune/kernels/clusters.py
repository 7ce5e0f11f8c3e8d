"""Clustering by density peaks: centres are dense places far from denser ones. Deterministic, no loop over points."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import LongTensor, Tensor

from .similarity import BLOCK_BYTES, TINY
from .switch import with_triton


def rows(x: Tensor, index: Tensor) -> Tensor:
    """(S, N, D), (S, K) -> (S, K, D)."""
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))


@with_triton("clusters")
def group_means(values: Tensor, label: Tensor, count: int, weight: Tensor) -> Tensor:
    """(S, R, D), (S, R) group of each row in [0, count), (S, R) weights >= 0 -> (S, count, D) weighted means.

    Like `segment_mean`, but every image has groups of its own; a group without weight is zero. Sums in float32,
    linear and differentiable in values.
    """
    s, _, width = values.shape
    place = (label + count * torch.arange(s, device=label.device).unsqueeze(1)).flatten()
    mass = torch.zeros(s * count, device=values.device).index_add(0, place, weight.flatten())
    share = weight.flatten() / mass.clamp_min(TINY).index_select(0, place)
    sums = torch.zeros(s * count, width, device=values.device)
    sums = sums.index_add(0, place, values.flatten(0, 1).float() * share.unsqueeze(1))
    return sums.view(s, count, width).to(values.dtype)


class Clusters(NamedTuple):
    """C clusters of R points, none of them empty."""

    centre: LongTensor  # (S, C) the point that is each cluster's centre, best first
    label: LongTensor  # (S, R) the cluster of each point


def _squared(some: Tensor, some_size: Tensor, columns: Tensor, column_size: Tensor) -> Tensor:
    """(S, A, D), (S, A), (S, B, D), (S, B) points and their squared lengths -> (S, A, B) squared distances / D."""
    product = torch.baddbmm(column_size.unsqueeze(1), some, columns.transpose(1, 2), alpha=-2)
    return product.add_(some_size.unsqueeze(2)).clamp_min_(0).div_(some.shape[2])


def _centred(x: Tensor) -> Tensor:
    """Inner products of what is left do not cancel."""
    x = x.float()
    return x - x.mean(1, keepdim=True)


def peak_order(x: Tensor, neighbours: int = 5, block_bytes: int = BLOCK_BYTES) -> LongTensor:
    """(S, R, D) points -> (S, R) their indices, best centre first, as `density_peaks` says."""
    s, r, _ = x.shape
    x = _centred(x)
    size = x.square().sum(2)
    step = max(1, block_bytes // (4 * s * r))
    spans = [(i, min(i + step, r)) for i in range(0, r, step)]
    nearest, far = [], []
    for a, b in spans:
        block = _squared(x[:, a:b], size[:, a:b], x, size)
        block.diagonal(a, 1, 2).zero_()
        nearest.append(block.topk(min(neighbours, r), dim=2, largest=False).values.mean(2))
        far.append(block.amax((1, 2)))
    density = -torch.cat(nearest, 1)  # ln rho
    rank = density.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # 0 is the densest
    limit = torch.stack(far).amax(0)[:, None, None]
    delta = []
    for a, b in spans:
        block = _squared(x[:, a:b], size[:, a:b], x, size)
        denser = rank.unsqueeze(1) < rank[:, a:b].unsqueeze(2)
        delta.append(torch.where(denser, block, limit).amin(2))
    peak = density + 0.5 * torch.cat(delta, 1).clamp_min(TINY**2).log()
    peak = torch.where(rank == 0, float("inf"), peak)  # equal points have no far one: the first still leads
    return peak.argsort(dim=1, descending=True, stable=True)  # type: ignore[return-value]


def density_peaks(x: Tensor, count: int, neighbours: int = 5, block_bytes: int = BLOCK_BYTES) -> Clusters:
    """(S, R, D) points -> `count` <= R clusters (Rodriguez and Laio, 2014, with the k nearest neighbours' density).

    With d_ij = |x_i - x_j| / sqrt(D):  rho_i = exp(-mean of d_ij^2 over the nearest neighbours, itself among them),
    delta_i = min of d_ij over the denser j (for the densest the largest distance of all). The centres are the
    `count` points of largest rho delta; every other point joins the nearest centre. Ties: of equally dense points
    the lower index is the denser; equal products and equally near centres go to the lower index. rho is compared by
    its logarithm, so it does not underflow where distances are large.

    Distances come in blocks of rows of at most `block_bytes` and are made twice; they are never all in memory.
    """
    s, r, _ = x.shape
    centre = peak_order(x, neighbours, block_bytes)[:, :count]
    x = _centred(x)
    size = x.square().sum(2)
    centres = rows(x, centre)
    row_size = size.gather(1, centre)
    step = max(1, block_bytes // (4 * s * max(count, 1)))
    label = torch.cat(
        [
            _squared(x[:, i : i + step], size[:, i : i + step], centres, row_size).argmin(2)
            for i in range(0, r, step)
        ],
        1,
    )
    own = torch.arange(count, device=x.device).expand(s, -1)
    return Clusters(centre, label.scatter(1, centre, own))  # type: ignore[arg-type]
