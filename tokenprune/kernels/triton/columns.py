"""What keys receive from all queries, without a block of the attention matrix leaving the chip."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .attention import WIDEST, capped, mask_of
from .shared import FLOAT32, additive, alike, cdiv, pow2


@triton.jit
def _hidden(
    logits, mask, spot, there, m, n, past, window, softcap, lowest,
    KIND: tl.constexpr, CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """(M, N) logits of queries m and keys n with the cap on and -inf where a query must not look."""
    if CAP:
        logits = capped(logits, softcap)
    if KIND > 0:
        extra = mask_of(mask, spot, there, KIND)
        logits = tl.where(extra <= lowest, float("-inf"), logits + extra)
    if CAUSAL:
        age = past + m[:, None] - n[None, :]
        seen = age >= 0
        if WINDOW:
            seen = seen & (age < window)
        logits = tl.where(seen, logits, float("-inf"))
    return tl.where(there, logits, float("-inf"))


@triton.jit
def _normalisers(
    query, key, mask, out, group, heads, queries, keys, width, past, window, scaling, softcap, lowest,
    q_b, q_h, q_q, q_d, k_b, k_h, k_n, k_d, m_b, m_h, m_q, m_k,
    KIND: tl.constexpr, CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    PRECISION: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """log of the softmax's denominator of M queries of one head; -inf where a query may look at nothing."""
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    shared, first = head // group, tl.program_id(1) * M
    m, d = first + tl.arange(0, M), tl.arange(0, D)
    row = m < queries
    x = tl.load(
        query + batch * q_b + head * q_h + m[:, None] * q_q + d[None, :] * q_d,
        mask=row[:, None] & (d < width)[None, :],
        other=0.0,
    )
    key += batch * k_b + shared * k_h
    top = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    low, high = 0, keys
    if CAUSAL:  # the keys that any of these queries sees
        high = tl.minimum(keys, past + first + M)
        if WINDOW:
            low = tl.maximum(0, past + first - window + 1) // N * N
    for start in range(low, high, N):
        n = start + tl.arange(0, N)
        y = tl.load(
            key + n[None, :] * k_n + d[:, None] * k_d,
            mask=(n < keys)[None, :] & (d < width)[:, None],
            other=0.0,
        )
        logits = tl.dot(x, y, input_precision=PRECISION) * scaling
        there = row[:, None] & (n < keys)[None, :]
        spot = batch * m_b + shared * m_h + m[:, None] * m_q + n[None, :] * m_k
        logits = _hidden(
            logits, mask, spot, there, m, n, past, window, softcap, lowest, KIND, CAP, CAUSAL, WINDOW
        )
        higher = tl.maximum(top, tl.max(logits, 1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(top - safe) + tl.sum(tl.exp(logits - safe[:, None]), 1)
        top = higher
    tl.store(out + (batch * heads + head) * queries + m, top + tl.log(total), mask=row)


@triton.jit
def _columns(
    query, key, mask, normaliser, valid, out, group, heads, queries, keys, width, past, window, scaling, softcap,
    lowest, q_b, q_h, q_q, q_d, k_b, k_h, k_n, k_d, m_b, m_h, m_q, m_k, v_b, v_q,
    KIND: tl.constexpr, CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SKIP: tl.constexpr,
    PRECISION: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """What N keys receive from all queries of one head. SKIP: queries that may look at nothing give nothing."""
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    shared, first = head // group, tl.program_id(1) * N
    n, d = first + tl.arange(0, N), tl.arange(0, D)
    y = tl.load(
        key + batch * k_b + shared * k_h + n[None, :] * k_n + d[:, None] * k_d,
        mask=(n < keys)[None, :] & (d < width)[:, None],
        other=0.0,
    )
    query += batch * q_b + head * q_h
    total = tl.zeros([N], tl.float32)
    low, high = 0, queries
    if CAUSAL:  # the queries that see any of these keys
        low = tl.maximum(0, first - past) // M * M
        if WINDOW:
            high = tl.minimum(queries, first + N - 1 + window - past)
    for start in range(low, high, M):
        m = start + tl.arange(0, M)
        x = tl.load(
            query + m[:, None] * q_q + d[None, :] * q_d,
            mask=(m < queries)[:, None] & (d < width)[None, :],
            other=0.0,
        )
        logits = tl.dot(x, y, input_precision=PRECISION) * scaling
        there = (m < queries)[:, None] & (n < keys)[None, :]
        spot = batch * m_b + shared * m_h + m[:, None] * m_q + n[None, :] * m_k
        logits = _hidden(
            logits, mask, spot, there, m, n, past, window, softcap, lowest, KIND, CAP, CAUSAL, WINDOW
        )
        whole = tl.load(normaliser + (batch * heads + head) * queries + m, mask=m < queries, other=0.0)
        if SKIP:
            whole = tl.where(whole == float("-inf"), 0.0, whole)
        share = tl.exp(logits - whole[:, None])
        if valid is not None:
            counts = tl.load(valid + batch * v_b + m * v_q, mask=m < queries, other=0) != 0
            share = tl.where(counts[:, None], share, 0.0)
        total += tl.sum(tl.where(there, share, 0.0), 0)
    tl.store(out + (batch * heads + head) * keys + n, total, mask=n < keys)


def _sums(
    query: Tensor, key: Tensor, scaling: float, mask: Tensor | None, causal: bool, window: int | None,
    valid: Tensor | None, softcap: float | None, skip: bool,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """(B, H, K) sums over queries, (B, H, Q) log denominators; None where a head is too wide.

    skip: a finite mask may hide, too, and a query that may look at nothing gives nothing.
    """
    query, key = alike(query, key)
    batch, heads, queries, width = query.shape
    kv_heads, keys = key.shape[1:3]
    if width > WIDEST:
        return None
    shut, kind = additive(mask, batch, kv_heads, queries, keys)
    steps = (0, 0, 0, 0) if shut is None else shut.stride()
    finite = skip and mask is not None and mask.dtype != torch.bool
    lowest = torch.finfo(mask.dtype).min / 2 if finite and mask is not None else float("-inf")
    counted = valid.to(torch.uint8) if valid is not None else None
    d = pow2(width, 16)
    m, n = pow2(min(queries, 64), 16), pow2(min(keys, 64 if d <= 128 else 32), 16)
    whole = torch.empty(batch, heads, queries, device=query.device)
    out = torch.empty(batch, heads, keys, device=query.device)
    sizes = (heads // kv_heads, heads, queries, keys, width, keys - queries, window or 0)
    sizes = (*sizes, scaling, softcap or 1.0, lowest, *query.stride(), *key.stride(), *steps)
    fixed = {
        "KIND": kind, "CAP": softcap is not None, "CAUSAL": causal, "WINDOW": causal and bool(window),
        "PRECISION": FLOAT32.value, "M": m, "N": n, "D": d,
    }  # fmt: skip
    _normalisers[(batch * heads, cdiv(queries, m))](query, key, shut, whole, *sizes, **fixed)
    rows = (0, 0) if counted is None else counted.stride()
    _columns[(batch * heads, cdiv(keys, n))](
        query, key, shut, whole, counted, out, *sizes, *rows, SKIP=skip, **fixed
    )
    return out, whole


def received_attention(query: Tensor, key: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """As the reference. Products are made twice, and no block of them leaves the chip."""
    sums = _sums(query, key, scaling, mask, False, None, None, None, False)
    return NotImplemented if sums is None else sums[0].sum(1) / (query.shape[1] * query.shape[2])


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
    """As the reference; of causal queries only the tiles that they look at are made."""
    if mask is not None and mask.dim() == 2:
        mask = mask.bool()[:, None, None]
    sums = _sums(query, key, scaling, mask, causal, window, valid, softcap, True)
    if sums is None:
        return NotImplemented
    received, whole = sums
    counted = (whole > float("-inf")).any(1)
    if valid is not None:
        counted &= valid.bool()
    return received.sum(1) / query.shape[1] / counted.sum(1, keepdim=True).clamp(min=1)
