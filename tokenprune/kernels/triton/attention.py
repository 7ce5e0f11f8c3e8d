"""Attention scores without an attention matrix and without copies of the keys in another precision."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .shared import FLOAT32, additive, alike, cdiv, pow2

WIDEST = 256
"""The widest head that a program takes in one piece."""


@triton.jit
def mask_of(mask, offset, there, KIND: tl.constexpr):
    """What a block of a mask adds to logits; -inf where it hides."""
    if KIND == 1:
        return tl.where(tl.load(mask + offset, mask=there, other=0) != 0, 0.0, float("-inf"))
    return tl.load(mask + offset, mask=there, other=0.0).to(tl.float32)


@triton.jit
def capped(logits, softcap):
    """softcap tanh(logits / softcap)."""
    halved = tl.exp(-2 * tl.abs(logits / softcap))
    return tl.where(logits < 0, -softcap, softcap) * (1 - halved) / (1 + halved)


@triton.jit
def _logits(
    query, key, mask, out, group, queries, keys, width, scaling, softcap, lowest,
    q_b, q_h, q_q, q_d, k_b, k_h, k_n, k_d, m_b, m_h, m_q, m_k, o_b, o_h, o_q,
    kv_heads: tl.constexpr, KIND: tl.constexpr, CAP: tl.constexpr, PRECISION: tl.constexpr,
    R: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """A block of keys against R rows (query head of the group, query) of one key head."""
    batch, head = (tl.program_id(0) // kv_heads).to(tl.int64), tl.program_id(0) % kv_heads
    r = tl.program_id(2) * R + tl.arange(0, R)
    n = tl.program_id(1) * N + tl.arange(0, N)
    d = tl.arange(0, D)
    own, at = head * group + r // queries, r % queries
    row, column = r < group * queries, n < keys
    x = tl.load(
        query + batch * q_b + own[:, None] * q_h + at[:, None] * q_q + d[None, :] * q_d,
        mask=row[:, None] & (d < width)[None, :],
        other=0.0,
    )
    y = tl.load(
        key + batch * k_b + head * k_h + n[None, :] * k_n + d[:, None] * k_d,
        mask=column[None, :] & (d < width)[:, None],
        other=0.0,
    )
    logits = tl.dot(x, y, input_precision=PRECISION) * scaling
    if CAP:
        logits = capped(logits, softcap)
    there = row[:, None] & column[None, :]
    if KIND > 0:
        shape = batch * m_b + head * m_h + at[:, None] * m_q + n[None, :] * m_k
        extra = mask_of(mask, shape, there, KIND)
        logits = tl.where(extra <= lowest, float("-inf"), logits + extra)
    tl.store(out + batch * o_b + own[:, None] * o_h + at[:, None] * o_q + n[None, :], logits, mask=there)


def _attend(
    query: Tensor, key: Tensor, scaling: float, mask: Tensor | None, softcap: float | None, hide: bool
) -> Tensor | None:
    """(B, H, Q, K) float32 logits; None where a head is too wide. `hide`: a finite mask may hide, too."""
    query, key = alike(query, key)
    batch, heads, queries, width = query.shape
    kv_heads, keys = key.shape[1:3]
    if width > WIDEST:
        return None
    group = heads // kv_heads
    shut, kind = additive(mask, batch, kv_heads, queries, keys)
    steps = (0, 0, 0, 0) if shut is None else shut.stride()
    finite = hide and mask is not None and mask.dtype != torch.bool
    lowest = torch.finfo(mask.dtype).min / 2 if finite and mask is not None else float("-inf")
    out = torch.empty(batch, heads, queries, keys, device=query.device)
    rows, columns = pow2(min(group * queries, 32), 16), pow2(min(keys, 128), 16)
    _logits[(batch * kv_heads, cdiv(keys, columns), cdiv(group * queries, rows))](
        query, key, shut, out, group, queries, keys, width, scaling, softcap or 1.0, lowest,
        *query.stride(), *key.stride(), *steps, *out.stride()[:3], kv_heads=kv_heads, KIND=kind,
        CAP=softcap is not None, PRECISION=FLOAT32.value, R=rows, N=columns, D=pow2(width, 16),
    )  # fmt: skip
    return out


def row_attention(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """As the reference."""
    logits = _attend(query, key, scaling, mask, None, False)
    return NotImplemented if logits is None else logits.softmax(-1)[:, :, 0]


def query_attention(
    query: Tensor, key: Tensor, scaling: float, mask: Tensor | None = None, softcap: float | None = None
) -> Tensor:
    """As the reference, as long as all heads' rows fit into 64 MiB."""
    from ..attention import BLOCK_BYTES

    if 4 * query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2] > BLOCK_BYTES:
        return NotImplemented
    logits = _attend(query, key, scaling, mask, softcap, True)
    if logits is None:
        return NotImplemented
    weights = logits.softmax(-1)
    return (weights if mask is None else weights.nan_to_num(0.0)).mean(1)
