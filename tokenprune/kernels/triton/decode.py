"""One decode step's attention over keys that are read where they lie, split over programs and put together.

A program takes one key head with all query heads that share it, and a run of the keys. Scores are made once: the
output and, where they are asked for, the softmax weights come of the same pass.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .attention import WIDEST
from .shared import FLOAT32, PROGRAMS, additive, alike, cdiv, pow2

SPLITS = 128
"""The most runs that the keys of one head are cut into."""


@triton.jit
def _run(
    query, key, value, rows, mask, logits, part, top, total,
    group, keys, stored, width, value_width, scaling, softcap, run,
    q_b, q_h, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, m_b, m_h, m_n,
    kv_heads: tl.constexpr, KIND: tl.constexpr, CAP: tl.constexpr, PRECISION: tl.constexpr,
    G: tl.constexpr, N: tl.constexpr, D: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """The softmax over one run of keys, not yet divided by its sum, and what it makes of the values."""
    place = tl.program_id(0).to(tl.int64)
    batch, head = place // kv_heads, place % kv_heads
    split, splits = tl.program_id(1), tl.num_programs(1)
    g, d, dv = tl.arange(0, G), tl.arange(0, D), tl.arange(0, V)
    x = tl.load(
        query + batch * q_b + (head * group + g)[:, None] * q_h + d[None, :] * q_d,
        mask=(g < group)[:, None] & (d < width)[None, :],
        other=0.0,
    )
    key += batch * k_b + head * k_h
    value += batch * v_b + head * v_h
    high = tl.full([G], float("-inf"), tl.float32)
    mass = tl.zeros([G], tl.float32)
    out = tl.zeros([G, V], tl.float32)
    end = tl.minimum(keys, (split + 1) * run)
    for start in range(split * run, end, N):
        i = start + tl.arange(0, N)
        there = i < end
        n = i.to(tl.int64)
        if rows is not None:  # flat over batch, heads and keys
            n = tl.load(rows + place * keys + i, mask=there, other=0) - place * stored
        y = tl.load(
            key + n[None, :] * k_n + d[:, None] * k_d,
            mask=there[None, :] & (d < width)[:, None],
            other=0.0,
        )
        score = tl.dot(x, y, input_precision=PRECISION) * scaling
        if CAP:
            small = tl.exp(-2 * tl.abs(score / softcap))
            score = tl.where(score < 0, -softcap, softcap) * (1 - small) / (1 + small)
        if KIND > 0:
            spot = mask + batch * m_b + head * m_h + i * m_n
            if KIND == 1:
                extra = tl.where(tl.load(spot, mask=there, other=0) != 0, 0.0, float("-inf"))
            else:
                extra = tl.load(spot, mask=there, other=0.0).to(tl.float32)
            score += extra[None, :]
        score = tl.where(there[None, :], score, float("-inf"))
        if logits is not None:
            own = logits + (place * group + g)[:, None] * keys + i[None, :]
            tl.store(own, score, mask=(g < group)[:, None] & there[None, :])
        higher = tl.maximum(high, tl.max(score, 1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        shrink = tl.exp(high - safe)
        weight = tl.exp(score - safe[:, None])
        z = tl.load(
            value + n[:, None] * v_n + dv[None, :] * v_d,
            mask=there[:, None] & (dv < value_width)[None, :],
            other=0.0,
        )
        out = tl.dot(weight.to(z.dtype), z, out * shrink[:, None], input_precision=PRECISION)
        mass = mass * shrink + tl.sum(weight, 1)
        high = higher
    at = (place * group + g) * splits + split
    tl.store(top + at, high, mask=g < group)
    tl.store(total + at, mass, mask=g < group)
    tl.store(
        part + at[:, None] * value_width + dv[None, :],
        out,
        mask=(g < group)[:, None] & (dv < value_width)[None, :],
    )


@triton.jit
def _join(
    part, top, total, logits, out, splits, keys, value_width,
    P: tl.constexpr, N: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """The runs of one query head put together; its scores become weights in place."""
    head = tl.program_id(0).to(tl.int64)
    p, dv = tl.arange(0, P), tl.arange(0, V)
    high = tl.load(top + head * splits + p, mask=p < splits, other=float("-inf"))
    highest = tl.max(high, 0)
    scale = tl.exp(high - highest)
    mass = tl.sum(scale * tl.load(total + head * splits + p, mask=p < splits, other=0.0), 0)
    values = tl.load(
        part + (head * splits + p)[:, None] * value_width + dv[None, :],
        mask=(p < splits)[:, None] & (dv < value_width)[None, :],
        other=0.0,
    )
    whole = tl.sum(values * scale[:, None], 0) / mass
    tl.store(out + head * value_width + dv, whole.to(out.dtype.element_ty), mask=dv < value_width)
    if logits is not None:
        for start in range(0, keys, N):
            i = start + tl.arange(0, N)
            score = tl.load(logits + head * keys + i, mask=i < keys, other=0.0)
            tl.store(logits + head * keys + i, tl.exp(score - highest) / mass, mask=i < keys)


def _step(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor | None, scaling: float, mask: Tensor | None,
    softcap: float | None, weights: bool,
) -> tuple[Tensor, Tensor | None] | None:  # fmt: skip
    """Output (B, H, 1, d_v) and weights (B, H, n); None where a head is too wide or its size does not fit."""
    kind_of = value.dtype
    query, key, value = alike(query, key, value)
    batch, heads, _, width = query.shape
    kv_heads, stored, value_width = key.shape[1], key.shape[2], value.shape[3]
    if max(width, value_width) > WIDEST:
        return None
    group = heads // kv_heads
    keys = stored if rows is None else rows.shape[0] // (batch * kv_heads)
    if mask is not None and mask.dim() != 4:
        return None
    shut, kind = additive(mask, batch, kv_heads, 1, keys)
    steps = (0, 0, 0) if shut is None else (shut.stride(0), shut.stride(1), shut.stride(3))
    block = 64 if max(width, value_width) <= 128 else 32
    splits = min(SPLITS, cdiv(keys, block), max(1, PROGRAMS // (batch * kv_heads)))
    run = cdiv(cdiv(keys, splits), block) * block
    splits = cdiv(keys, run)
    device, d, v = query.device, pow2(width, 16), pow2(value_width, 16)
    part = torch.empty(batch * heads, splits, value_width, device=device)
    top, total = (torch.empty(batch * heads, splits, device=device) for _ in range(2))
    logits = torch.empty(batch, heads, keys, device=device) if weights else None
    out = torch.empty(batch, heads, 1, value_width, dtype=kind_of, device=device)
    q_b, q_h, _, q_d = query.stride()
    _run[(batch * kv_heads, splits)](
        query, key, value, rows, shut, logits, part, top, total,
        group, keys, stored, width, value_width, scaling, softcap or 1.0, run,
        q_b, q_h, q_d, *key.stride(), *value.stride(), *steps, kv_heads=kv_heads, KIND=kind,
        CAP=softcap is not None, PRECISION=FLOAT32.value, G=pow2(group, 16), N=block, D=d, V=v,
    )  # fmt: skip
    _join[(batch * heads,)](
        part, top, total, logits, out, splits, keys, value_width, P=pow2(splits), N=1024, V=v
    )
    return out, logits


def dense_step(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """As the reference, but half precision is rounded once, at the end."""
    return _step(query, key, value, None, scaling, mask, softcap, True) or NotImplemented


def partial_step(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, scaling: float, mask: Tensor | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """As the reference; keys of any strides are read in place."""
    return _step(query, key, value, rows, scaling, mask, softcap, True) or NotImplemented


def sparse_step(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, scaling: float, mask: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:  # fmt: skip
    """As the reference; keys of any strides are read in place."""
    step = _step(query, key, value, rows, scaling, mask, softcap, False)
    return NotImplemented if step is None else step[0]
