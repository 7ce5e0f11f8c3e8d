"""Even runs of a sequence of tokens, and how much the tokens of each run differ among themselves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import LongTensor, Tensor

from .similarity import BLOCK_BYTES


class Runs(NamedTuple):
    """A sequence of N tokens cut into P runs whose lengths differ by one at most."""

    run: LongTensor  # (N,) the run of each token
    first: LongTensor  # (P,) first token of each run
    size: LongTensor  # (P,) its tokens
    longest: int


def even_runs(n: int, count: int, device: torch.device) -> Runs:
    """Run p < count <= n begins at token floor(p n / count)."""
    place = torch.arange(count + 1, device=device) * n // count
    index = torch.arange(n, device=device)
    run = ((index + 1) * count - 1) // n
    return Runs(run, place[:-1], place.diff(), -(-n // count))  # type: ignore[arg-type]


def similarity_variance(x: Tensor, runs: Runs, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """(S, N, C) unit rows -> (S, N) population variance of each token's cosines to the others of its run.

    0 in a run of one token. Cosines in blocks of rows of at most `block_bytes`, never across runs.
    """
    s, n, c = x.shape
    p, m = runs.size.shape[0], runs.longest
    column = torch.arange(m, device=x.device)
    inside = column < runs.size.unsqueeze(1)  # (P, M)
    index = (runs.first.unsqueeze(1) + column).clamp_max(n - 1)
    rows = x.index_select(1, index.flatten()).view(s, p, m, c)
    others = (runs.size - 1).clamp_min(1).view(p, 1, 1)
    step = max(1, block_bytes // (4 * s * p * m))
    out = []
    for i in range(0, m, step):
        alike = torch.matmul(rows[:, :, i : i + step], rows.transpose(2, 3))  # (S, P, b, M)
        counts = inside.unsqueeze(1) & (column[i : i + step].unsqueeze(1) != column)
        mean = (alike * counts).sum(3, keepdim=True) / others
        out.append(((alike - mean).square_() * counts).sum(3) / others.squeeze(2))
    place = runs.run * m + torch.arange(n, device=x.device) - runs.first[runs.run]
    return torch.cat(out, 2).flatten(1).index_select(1, place)
