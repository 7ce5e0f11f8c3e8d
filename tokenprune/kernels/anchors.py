"""Merging tokens into chosen ones: which are dense, which is nearest, and the linear map that follows."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor

from .clusters import rows
from .framing import Sheet
from .similarity import BLOCK_BYTES, TINY, unit


def pour(values: Tensor, owner: Tensor, weight: Tensor) -> Tensor:
    """(S, N, D), (S, N) owner of each token or -1, (S, N) weights -> (S, N, D): owners hold what flows into them.

    out_o = sum of weight_n values_n over the n with owner o. Sums in float32, linear and differentiable in values.
    """
    s, n, width = values.shape
    base = n * torch.arange(s, device=owner.device).unsqueeze(1)
    place = (owner.clamp_min(0) + base).flatten()
    share = torch.where(owner >= 0, weight, 0.0).flatten().unsqueeze(1)
    out = torch.zeros(s * n, width, device=values.device)
    return out.index_add(0, place, values.flatten(0, 1).float() * share).view(s, n, width).to(values.dtype)


def nearest_anchor(
    x: Tensor, anchor: Tensor, count: int, group: Tensor, block_bytes: int = BLOCK_BYTES
) -> LongTensor:
    """(S, N, C) rows, (S, N) anchors (`count` of a clip at most), (S, N) groups -> (S, N) the nearest one by cosine.

    Only anchors of a token's own group are looked at; -1 where it has none. Ties go to the lower index.
    """
    s, n, _ = x.shape
    if count == 0:
        return torch.full_like(group, -1)  # type: ignore[return-value]
    valid, index = anchor.to(torch.uint8).sort(dim=1, descending=True, stable=True)  # CUDA sorts no bool
    valid, index = valid[:, :count], index[:, :count]  # (S, A), ascending
    own = group.gather(1, index).where(valid > 0, -1).unsqueeze(1)  # no group's number
    columns = unit(rows(x, index)).transpose(1, 2)  # a token's own length makes none of them nearer
    step, out = max(1, block_bytes // (4 * s * count)), []
    for i in range(0, n, step):
        alike = torch.bmm(x[:, i : i + step].float(), columns)
        best, which = alike.masked_fill_(group[:, i : i + step].unsqueeze(2) != own, -float("inf")).max(2)
        out.append(index.gather(1, which).where(best > -float("inf"), -1))
    return out[0] if len(out) == 1 else torch.cat(out, 1)  # type: ignore[return-value]


def peak_scores(x: Tensor, hidden: Tensor, neighbours: int, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """(G, M, D) points, (G, M) those that do not count -> (G, M) density-peak scores; -inf where hidden.

    As in `kernels.density_peaks`, among the others of each group alone: rho_i = exp(-mean of d_ij^2 over the nearest
    `neighbours`, itself among them; all, where there are fewer), delta_i = least d_ij to a denser point. The score is
    ln(rho delta) and a constant, infinite for the densest. Distances come in blocks of rows; several are made twice.
    """
    groups, m, width = x.shape
    near, inf = min(neighbours, m), float("inf")
    x = x.float()
    x = x - x.mean(1, keepdim=True)  # inner products of what is left do not cancel
    size = torch.linalg.vector_norm(x, dim=2).square_().masked_fill_(hidden, inf)
    less = (hidden.sum(1, keepdim=True) - m).clamp_(-near, -1).mul_(width)
    step = max(1, block_bytes // (4 * groups * m))

    def squared(i: int) -> Tensor:
        """(G, rows, M) squared distances from the rows of a block, times D; infinite from and to what is hidden."""
        block = torch.baddbmm(size.unsqueeze(1), x[:, i : i + step], x.transpose(1, 2), alpha=-2)
        block.add_(size[:, i : i + step].unsqueeze(2)).clamp_min_(0).diagonal(i, 1, 2).zero_()
        return block

    whole = squared(0) if step >= m else None
    parts = []
    for i in range(0, m, step):
        few = (squared(i) if whole is None else whole).topk(near, dim=2, largest=False).values
        parts.append(few.nan_to_num_(posinf=0.0).sum(2))
    mean = parts[0] if whole is not None else torch.cat(parts, 1)
    rho = mean.div_(less).masked_fill_(hidden, -inf)
    rank = rho.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    parts = []
    for i in range(0, m, step):
        block = squared(i) if whole is None else whole
        parts.append(block.masked_fill_(rank.unsqueeze(1) >= rank[:, i : i + step].unsqueeze(2), inf).amin(2))
    # The densest has none that is denser and scores infinity, equal points score as if a little apart.
    delta = parts[0] if whole is not None else torch.cat(parts, 1)
    return delta.clamp_min_(TINY**2 * width).log_().mul_(0.5).add_(rho).masked_fill_(hidden, -inf)


def frame_peaks(x: Tensor, sheet: Sheet, hidden: Tensor, neighbours: int) -> Tensor:
    """(S, N, D), (S, N) -> (S, T, W) density-peak scores in each frame; -inf at filler and what is hidden."""
    out = sheet.lay(hidden) if sheet.real is None else sheet.lay(hidden) | ~sheet.real
    return peak_scores(sheet.lay(x).flatten(0, 1), out.flatten(0, 1), neighbours).view(out.shape)


def runs(x: Tensor, before: Tensor, tau: float) -> LongTensor:
    """(S, N, D), (N,) predecessor or -1 -> (S, N) the first token of each one's run of cosines >= tau."""
    x, n = unit(x), x.shape[1]
    link = ((x * x.index_select(1, before.clamp_min(0))).sum(2) >= tau) & (before >= 0)
    head = torch.where(link, before, torch.arange(n, device=x.device))
    for _ in range(n.bit_length()):  # each turn doubles how far back a token sees
        head = head.gather(1, head)
    return head  # type: ignore[return-value]
