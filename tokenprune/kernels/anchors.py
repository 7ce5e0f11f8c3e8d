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
    """(S, N, C) unit rows, (S, N) anchors (`count` of a clip at most), (S, N) groups -> (S, N) nearest one by cosine.

    Only anchors of a token's own group are looked at; -1 where it has none. Ties go to the lower index.
    """
    s, n, _ = x.shape
    if count == 0:
        return torch.full_like(group, -1)  # type: ignore[return-value]
    index = (~anchor).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]  # (S, A), ascending
    valid, own = anchor.gather(1, index), group.gather(1, index)
    columns = rows(x, index).transpose(1, 2)
    step, out = max(1, block_bytes // (4 * s * count)), []
    for i in range(0, n, step):
        alike = torch.bmm(x[:, i : i + step], columns)
        fits = valid.unsqueeze(1) & (group[:, i : i + step].unsqueeze(2) == own.unsqueeze(1))
        best, which = alike.masked_fill(~fits, -float("inf")).max(2)
        out.append(torch.where(best > -float("inf"), index.gather(1, which), -1))
    return torch.cat(out, 1)  # type: ignore[return-value]


def peak_scores(x: Tensor, valid: Tensor, neighbours: int, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """(G, M, D) points, (G, M) those that count -> (G, M) density-peak score ln(rho delta) of each; -inf elsewhere.

    As in `kernels.density_peaks`, among the valid points of each group alone: rho_i = exp(-mean of d_ij^2 over the
    nearest `neighbours`, itself among them; all, where there are fewer), delta_i = least d_ij to a denser point, d
    over sqrt(D); the densest of a group scores highest. Distances come in blocks of rows; several are made twice.
    """
    groups, m, width = x.shape
    x = x.float()
    weight = valid.float().unsqueeze(2)
    x = (x - (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)) * weight
    size, inf = x.square().sum(2), float("inf")
    near = min(neighbours, m)
    real = valid.sum(1).clamp(1, near)[:, None]
    step = max(1, block_bytes // (4 * groups * m))

    def squared(i: int) -> Tensor:
        """(G, rows, M) squared distances from the rows of a block to the valid points."""
        product = torch.baddbmm(size.unsqueeze(1), x[:, i : i + step], x.transpose(1, 2), alpha=-2)
        block = product.add_(size[:, i : i + step].unsqueeze(2)).clamp_min_(0).div_(width)
        block.diagonal(i, 1, 2).zero_()
        return block.masked_fill_(~valid.unsqueeze(1), inf)

    whole = squared(0) if step >= m else None
    density = []
    for i in range(0, m, step):
        few = (squared(i) if whole is None else whole).topk(near, dim=2, largest=False).values
        density.append(-torch.where(few < inf, few, 0.0).sum(2) / real)
    rho = torch.cat(density, 1).masked_fill(~valid, -inf)
    rank = rho.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    delta = []
    for i in range(0, m, step):
        denser = rank.unsqueeze(1) < rank[:, i : i + step].unsqueeze(2)
        delta.append((squared(i) if whole is None else whole).masked_fill(~denser, inf).amin(2))
    peak = rho + 0.5 * torch.cat(delta, 1).clamp_min(TINY**2).log()
    return torch.where(rank == 0, inf, peak).masked_fill(~valid, -inf)


def frame_peaks(x: Tensor, sheet: Sheet, member: Tensor, neighbours: int) -> Tensor:
    """(S, N, D), (S, N) -> (S, T, W) density-peak scores among the members of each frame; -inf elsewhere."""
    valid = sheet.lay_mask(member)
    return peak_scores(sheet.lay(x).flatten(0, 1), valid.flatten(0, 1), neighbours).view(valid.shape)


def runs(x: Tensor, before: Tensor, tau: float) -> LongTensor:
    """(S, N, D), (N,) predecessor or -1 -> (S, N) the first token of each one's run of cosines >= tau."""
    x, n = unit(x), x.shape[1]
    link = ((x * x.index_select(1, before.clamp_min(0))).sum(2) >= tau) & (before >= 0)
    head = torch.where(link, before, torch.arange(n, device=x.device))
    for _ in range(n.bit_length()):  # each turn doubles how far back a token sees
        head = head.gather(1, head)
    return head  # type: ignore[return-value]
