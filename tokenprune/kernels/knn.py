"""Lists of the most similar tokens, and weighted sums over such lists."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor
from torch.nn import functional as F

from .similarity import BLOCK_BYTES


def most_similar(
    query: Tensor, x: Tensor, allowed: Tensor, count: int, block_bytes: int = BLOCK_BYTES
) -> tuple[LongTensor, Tensor]:
    """(S, K, C), (S, N, C) unit rows, (S, N) bool -> (S, K, J) indices into N and their cosines, J = min(count, N).

    Best first, ties to the lower index. Where fewer than J tokens are allowed the list ends with cosines of -inf.
    Cosines and their sorted indices in blocks of rows of at most `block_bytes` together.
    """
    step = max(1, block_bytes // (16 * x.shape[0] * x.shape[1]))
    columns, closed = x.transpose(1, 2), ~allowed.unsqueeze(1)
    index, cosine = [], []
    for i in range(0, query.shape[1], step):
        block = torch.bmm(query[:, i : i + step], columns).masked_fill_(closed, -float("inf"))
        value, place = block.sort(dim=2, descending=True, stable=True)
        index.append(place[:, :, :count])
        cosine.append(value[:, :, :count])
    return torch.cat(index, 1), torch.cat(cosine, 1)  # type: ignore[return-value]


def listed_sums(values: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """(S, N, D), (S, K, J) indices into N, (S, K, J) weights -> (S, K, D) float32 sums of weight * value.

    The J rows of a list are never all in memory. Linear and differentiable in `values`.
    """
    s, n, width = values.shape
    k = index.shape[1]
    flat = index + torch.arange(0, s * n, n, device=index.device).view(s, 1, 1)
    sums = F.embedding_bag(
        flat.view(s * k, -1),
        values.float().reshape(s * n, width),
        per_sample_weights=weight.float().view(s * k, -1),
        mode="sum",
    )
    return sums.view(s, k, width)


def best_list(index: Tensor, score: Tensor, head: Tensor, n: int) -> LongTensor:
    """(S, K, J) lists of tokens, their scores, (S, K) the head of each -> (S, N) head of the list that wants it most.

    -1 where no list does: a score of -inf is no listing. Ties to the lower head.
    """
    token, worth = index.flatten(1), score.flatten(1)
    nothing = torch.finfo(worth.dtype).min  # above -inf, which therefore is no one's best
    best = torch.full((index.shape[0], n), nothing, device=score.device)
    best = best.scatter_reduce(1, token, worth, "amax").gather(1, token)
    taker = torch.where(worth == best, head.unsqueeze(2).expand_as(index).flatten(1), n)
    owner = torch.full((index.shape[0], n), n, device=score.device).scatter_reduce(1, token, taker, "amin")
    return owner.masked_fill(owner == n, -1)  # type: ignore[return-value]
