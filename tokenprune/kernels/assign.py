"""Assigning every token to its most similar seed, and gathering what was assigned."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor

from .clusters import group_means, rows
from .similarity import BLOCK_BYTES
from .switch import with_triton

APART = 4.0
"""Taken off the cosine of two tokens of different sorts: more than two cosines can differ by."""


@with_triton("assign")
def best_match(
    a: Tensor, b: Tensor, sorts: tuple[Tensor, Tensor] | None = None, block_bytes: int = BLOCK_BYTES
) -> tuple[Tensor, LongTensor]:
    """(S, A, C), (S, B, C) unit rows -> (S, A) largest cosine with a row of `b`, (S, A) which row; ties to the lower.

    sorts: (S, A), (S, B); a row matches one of another sort only where there is none of its own. Products come in
    blocks of rows of at most `block_bytes`.
    """
    step = max(1, block_bytes // (4 * a.shape[0] * b.shape[1]))
    best, where = [], []
    for i in range(0, a.shape[1], step):
        product = torch.bmm(a[:, i : i + step], b.transpose(1, 2))
        if sorts is not None:
            product.add_(sorts[0][:, i : i + step].unsqueeze(2) != sorts[1].unsqueeze(1), alpha=-APART)
        value, place = product.max(2)
        best.append(value)
        where.append(place)
    if len(best) == 1:
        return best[0], where[0]  # type: ignore[return-value]
    return torch.cat(best, 1), torch.cat(where, 1)  # type: ignore[return-value]


def gather_members(
    values: Tensor, slot: Tensor, label: Tensor, weight: Tensor, own: Tensor | float = 0.5
) -> Tensor:
    """Mix each seed with the weighted mean of its members: (S, N, D) -> (S, K, D), in the dtype of `values`.

        y_k = own_k t_slot_k + (1 - own_k) sum_i w_i t_i / sum_i w_i      over the i with label_i = k

    slot: (S, K) the seeds. label: (S, N) in [0, K). weight: (S, N) >= 0; 0 for the seeds themselves and for tokens
    that are dropped. own: (S, K) or a number. A seed without any weight stays as it is. Sums in float32; linear in
    `values`, differentiable.
    """
    count = slot.shape[1]
    seeds = rows(values, slot).float()
    means = group_means(values.float(), label, count, weight)
    mass = torch.zeros_like(slot, dtype=torch.float32).scatter_add(1, label, weight.float())
    share = torch.where(mass > 0, own, 1.0).float().unsqueeze(2)
    return torch.lerp(means, seeds, share).to(values.dtype)
