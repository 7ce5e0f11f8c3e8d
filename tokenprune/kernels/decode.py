"""One decode step's attention: over all keys with its weights, or over a few of them in place. Torch references.

Query heads that share a key head are folded into rows, so keys and values are never repeated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .switch import with_triton


@with_triton("decode")
def dense_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    mask: Tensor | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(B, H, 1, d), (B, Hkv, S, d), (B, Hkv, S, d_v) -> output (B, H, 1, d_v) and weights (B, H, S) in float32.

    The scores are computed once, for both. `mask` is boolean or additive, broadcastable to (B, 1, 1, S).
    """
    folded = query.squeeze(2).unflatten(1, (key.shape[1], -1))  # (B, Hkv, G, d)
    weights = _softmax(folded @ key.transpose(2, 3), scaling, mask, softcap)
    out = weights.to(value.dtype) @ value
    return out.flatten(1, 2).unsqueeze(2), weights.flatten(1, 2)


@with_triton("decode")
def sparse_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    scaling: float,
    mask: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Output (B, H, 1, d_v) over n of the S keys: `rows` (B * Hkv * n,) are those of `flat_rows`, `mask` is over n."""
    return partial_step(query, key, value, rows, scaling, mask, softcap)[0]


@with_triton("decode")
def partial_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    scaling: float,
    mask: Tensor | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`sparse_step` with its weights (B, H, n) in float32."""
    batch, heads = key.shape[:2]
    shape = (batch, heads, rows.shape[0] // (batch * heads), -1)
    keys = key.reshape(-1, key.shape[-1]).index_select(0, rows).view(shape)
    values = value.reshape(-1, value.shape[-1]).index_select(0, rows).view(shape)
    folded = query.squeeze(2).unflatten(1, (heads, -1))
    weights = _softmax(folded @ keys.transpose(2, 3), scaling, mask, softcap)
    return (weights.to(values.dtype) @ values).flatten(1, 2).unsqueeze(2), weights.flatten(1, 2)


def flat_rows(columns: Tensor, heads: int, stored: int) -> Tensor:
    """(B, n) or (B, Hkv, n) columns of a (B, Hkv, S, d) cache -> (B * Hkv * n,) rows of its flat (B * Hkv * S, d)."""
    if columns.dim() == 2:
        columns = columns[:, None].expand(-1, heads, -1)
    base = torch.arange(columns.shape[0] * heads, device=columns.device).view(-1, heads, 1) * stored
    return (columns + base).flatten()


@with_triton("choice")
def top_mask(scores: Tensor, count: Tensor, most: int) -> Tensor:
    """(..., V) scores, (...) how many -> bool: the `count` largest, ties to the lower index; `most` >= every count."""
    most = min(most, scores.shape[-1])
    top = scores.topk(most, dim=-1).values
    least = top.gather(-1, (count - 1).clamp(0, most - 1)[..., None])
    above = scores > least
    tied = scores == least
    room = count[..., None] - above.sum(-1, keepdim=True)
    return (above | (tied & (tied.cumsum(-1) <= room))) & (count[..., None] > 0)


@with_triton("choice")
def places(mask: Tensor, most: int) -> Tensor:
    """(..., V) bool -> (..., most) indices of the True ones, ascending, -1 behind them."""
    v = mask.shape[-1]
    slot = torch.where(mask, mask.cumsum(-1) - 1, most).clamp(max=most)
    out = torch.full((*mask.shape[:-1], most + 1), -1, dtype=torch.long, device=mask.device)
    index = torch.arange(v, device=mask.device).expand(mask.shape)
    return out.scatter(-1, slot, index)[..., :most]


def _softmax(logits: Tensor, scaling: float, mask: Tensor | None, softcap: float | None) -> Tensor:
    logits = logits.float() * scaling
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(-1)
