"""Even runs of a sequence of tokens, and how much the tokens of each run differ among themselves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import LongTensor, Tensor

from .framing import Sheet
from .similarity import BLOCK_BYTES


class Runs(NamedTuple):
    """A sequence of N tokens cut into P runs whose lengths differ by one at most."""

    run: LongTensor  # (N,) the run of each token
    size: LongTensor  # (P,) its tokens
    sheet: Sheet  # the runs side by side


def even_runs(n: int, count: int, device: torch.device) -> Runs:
    """Run p < count <= n begins at token floor(p n / count)."""
    line, longest = torch.arange(n, device=device), -(-n // count)
    if n % count == 0:
        size = torch.full((count,), longest, device=device)
        return Runs(line // longest, size, Sheet(count, longest))  # type: ignore[arg-type]
    first = torch.arange(count + 1, device=device) * n // count
    run, size = ((line + 1) * count - 1) // n, first.diff()
    token = first[:-1, None] + line[:longest]
    real = token < first[1:, None]
    place = run * longest + line - first[run]
    sheet = Sheet(count, longest, token.clamp_max(n - 1).flatten(), place, real, real)  # type: ignore[arg-type]
    return Runs(run, size, sheet)  # type: ignore[arg-type]


def similarity_variance(x: Tensor, runs: Runs, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """(S, N, C) unit rows -> (S, N) population variance of each token's cosines to the others of its run.

    0 in a run of one token. Cosines in blocks of rows of at most `block_bytes`, never across runs.
    """
    sheet = runs.sheet
    laid = sheet.lay(x)  # (S, P, M, C)
    rows, m = laid.flatten(0, 1), sheet.width
    others = max(1, m - 1) if sheet.real is None else (runs.size - 1).clamp_min(1).view(-1, 1, 1)

    def only_others(alike: Tensor, i: int) -> Tensor:
        """(S, P, b, M) of the rows from i on: zero a token's own and the filler's, in place."""
        alike.diagonal(i, 2, 3).zero_()
        return alike if sheet.real is None else alike.mul_(sheet.real.unsqueeze(1))

    step, out = max(1, block_bytes // (4 * rows.shape[0] * m)), []
    for i in range(0, m, step):
        alike = torch.bmm(rows[:, i : i + step], rows.transpose(1, 2)).view(*laid.shape[:2], -1, m)
        mean = only_others(alike, i).sum(3, keepdim=True) / others
        out.append((only_others(alike.sub_(mean), i).square_().sum(3, keepdim=True) / others).squeeze(3))
    return sheet.take_up(torch.cat(out, 2) if len(out) > 1 else out[0])
