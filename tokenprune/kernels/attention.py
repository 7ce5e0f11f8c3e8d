"""Attention scores without an attention matrix: one row, or column means in blocks of queries."""

from __future__ import annotations

import torch
from torch import Tensor

from .switch import with_triton

BLOCK_BYTES = 64 * 2**20
"""No scratch tensor of a scoring function is larger than this."""


def _grouped(query: Tensor, key: Tensor) -> Tensor:
    """(B, H, Q, d) queries as (B, Hkv, H / Hkv, Q, d): query heads beside the key head they share."""
    return query.unflatten(1, (key.shape[1], -1))


def _additive(mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, float("-inf"))
    return mask.float()


@with_triton("attention")
def row_attention(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """Softmax row of single queries: (B, H, 1, d), (B, Hkv, K, d) -> (B, H, K) in float32.

    `mask` is boolean or additive, broadcastable to (B, 1, 1, K). Costs O(K d) and works under any attention kernel.
    """
    logits = torch.einsum("bghqd,bgkd->bghqk", _grouped(query.float(), key), key.float()) * scaling
    if mask is not None:
        logits = logits + _additive(mask)[:, :, None]
    return logits.softmax(-1).flatten(1, 2)[:, :, 0]


@with_triton("columns")
def received_attention(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """Attention each key receives, mean over queries and heads: (B, H, Q, d), (B, Hkv, K, d) -> (B, K), float32.

    Bidirectional attention of a vision tower; `mask` is boolean or additive, (B or 1, heads or 1, Q, K). Queries
    come in blocks, so that no Q x K matrix above 64 MiB exists.
    """
    batch, heads, queries, _ = query.shape
    keys = key.shape[2]
    step = max(1, BLOCK_BYTES // (4 * batch * heads * keys))
    keys_t = key.float().transpose(-1, -2)[:, :, None]
    total = torch.zeros(batch, keys, dtype=torch.float32, device=key.device)
    for start in range(0, queries, step):
        block = _grouped(query[:, :, start : start + step].float(), key)
        logits = block @ keys_t * scaling
        if mask is not None:
            logits = logits + _additive(mask[:, :, start : start + step])[:, :, None]
        total += logits.softmax(-1).sum(dim=(1, 2, 3))
    return total / (queries * heads)


@with_triton("attention")
def query_attention(
    query: Tensor, key: Tensor, scaling: float, mask: Tensor | None = None, softcap: float | None = None
) -> Tensor:
    """Head-mean attention rows of a few queries: (B, H, Q, d), (B, Hkv, K, d) -> (B, Q, K) in float32.

    `mask` is boolean or additive, broadcastable to (B, 1, Q, K); a row that may look at nothing is zero. Queries come
    in blocks of at most 64 MiB; grouped key heads are not repeated.
    """
    batch, heads, queries, _ = query.shape
    keys = key.shape[2]
    step = max(1, BLOCK_BYTES // (4 * batch * heads * keys))
    rows = []
    for start in range(0, queries, step):
        part = slice(start, start + step)
        weights = _weights(query[:, :, part], key, scaling, None if mask is None else mask[:, :, part], softcap)
        rows.append(weights.mean(dim=(1, 2)))
    return torch.cat(rows, dim=1)


@with_triton("columns")
def column_attention(
    query: Tensor,
    key: Tensor,
    scaling: float,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    valid: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """What each key receives, mean over heads and `valid` (B, Q) queries: (B, H, Q, d), (B, Hkv, K, d) -> (B, K).

    mask: boolean or additive, (B or 1, heads or 1, Q, K), or the keys (B, K) that are no padding. causal: queries are
    the last Q of the K tokens and look back, `window` tokens with their own or as far as there are any. Neither a
    Q x K matrix nor a mask of that size is made; queries come in blocks of 64 MiB. Queries that may look at nothing,
    as padding does, do not count.
    """
    batch, heads, queries, _ = query.shape
    keys = key.shape[2]
    step = max(1, BLOCK_BYTES // (4 * batch * heads * keys))
    total = torch.zeros(batch, keys, dtype=torch.float32, device=key.device)
    count = torch.zeros(batch, 1, dtype=torch.float32, device=key.device)
    if mask is not None and mask.dim() == 2:
        mask = mask.bool()[:, None, None].expand(-1, 1, queries, -1)
    for start in range(0, queries, step):
        part = slice(start, start + step)
        shut = None if mask is None else mask[:, :, part]
        if causal:
            places = torch.arange(keys - queries, keys, device=query.device)[part]
            shut = _looking_back(places, keys, window, shut)
        rows = _weights(query[:, :, part], key, scaling, shut, softcap).mean(dim=(1, 2))
        if valid is not None:
            rows = rows * valid[:, part, None]
        total += rows.sum(1)
        count += (rows.sum(-1) > 0).sum(1, keepdim=True)
    return total / count.clamp(min=1)


def _looking_back(places: Tensor, keys: int, window: int | None, mask: Tensor | None) -> Tensor:
    """`mask` of the queries at `places` among `keys` tokens without what is behind them or before their window."""
    age = places[:, None] - torch.arange(keys, device=places.device)
    seen = (age >= 0) & (age < window) if window else age >= 0
    if mask is None:
        return seen[None, None]
    return mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, float("-inf"))


def _weights(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None, softcap: float | None) -> Tensor:
    """Softmax of a block: (B, Hkv, H / Hkv, Q, K), zero in rows that are masked throughout."""
    logits = _grouped(query.float(), key) @ key.float().transpose(-1, -2)[:, :, None] * scaling
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if mask is None:
        return logits.softmax(-1)
    hidden = ~mask if mask.dtype == torch.bool else mask <= torch.finfo(mask.dtype).min / 2
    if mask.dtype != torch.bool:
        logits = logits + mask.float()[:, :, None]
    logits = logits.masked_fill(hidden[:, :, None], float("-inf"))
    return logits.softmax(-1).nan_to_num(0.0)
