"""From cosines with words to one sharpened relevance a token, a program an image: every pass stays on the chip."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..relevance import EPS
from .shared import cdiv, kth_largest, pow2

WORDS = 4096
"""The longest question that is pooled in one go."""


@triton.jit
def _pool(cosines, mask, out, tokens, words, tau, c_s, c_n, c_t, m_s, m_t, M: tl.constexpr, T: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * M + tl.arange(0, M)
    t = tl.arange(0, T)
    word = t < words
    if mask is not None:
        word = word & (tl.load(mask + image * m_s + t * m_t, mask=word, other=0) != 0)
    there = (n < tokens)[:, None] & word[None, :]
    x = tl.load(cosines + image * c_s + n[:, None] * c_n + t[None, :] * c_t, mask=there, other=0.0)
    x = x.to(tl.float32)
    logits = tl.where(word[None, :], x / tau, float("-inf"))
    top = tl.max(logits, 1)
    top = tl.where(top == float("-inf"), 0.0, top)  # an image without words: all shares are zero
    share = tl.exp(logits - top[:, None])
    total = tl.sum(share, 1)
    pooled = tl.sum(share * x, 1) / tl.where(total > 0, total, 1.0)
    tl.store(out + image * tokens + n, pooled, mask=n < tokens)


def word_pool(cosines: Tensor, mask: Tensor | None, tau: float) -> Tensor:
    """As the reference, up to `WORDS` words."""
    s, n, words = cosines.shape
    if words > WORDS:
        return NotImplemented
    out = torch.empty(s, n, device=cosines.device)
    width = pow2(words)
    rows = max(1, 2048 // width)
    shut = None if mask is None else mask.to(torch.uint8)
    steps = (0, 0) if shut is None else shut.stride()
    _pool[(cdiv(n, rows), s)](
        cosines, shut, out, n, words, tau, *cosines.stride(), *steps, M=rows, T=width
    )  # fmt: skip
    return out.to(cosines.dtype)


@triton.jit
def _sharpened(s, tau, gamma, shift, low, span):
    """(exp(gamma log softmax) - its least) / (its range)."""
    return (tl.exp(gamma * (s / tau - shift)) - low) / span


@triton.jit
def _sharpen(s, out, n, tau, gamma, damp, rank, part, EPSILON: tl.constexpr, BLOCK: tl.constexpr):
    s += tl.program_id(0).to(tl.int64) * n
    out += tl.program_id(0).to(tl.int64) * n
    high = tl.full([], float("-inf"), tl.float32)
    least = tl.full([], float("inf"), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        high = tl.maximum(high, tl.max(tl.load(s + i, mask=i < n, other=float("-inf")), 0))
        least = tl.minimum(least, tl.min(tl.load(s + i, mask=i < n, other=float("inf")), 0))
    total = tl.zeros([], tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.sum(tl.exp(tl.load(s + i, mask=i < n, other=float("-inf")) / tau - high / tau), 0)
    shift = high / tau + tl.log(total)  # log of the softmax's denominator
    low = tl.exp(gamma * (least / tau - shift))
    span = tl.exp(gamma * (high / tau - shift)) - low + EPSILON

    # The threshold lies between the rank-th largest value and the one above it.
    below = kth_largest(s, n, rank, BLOCK)
    more = tl.zeros([], tl.int32)
    above = tl.full([], float("inf"), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(s + i, mask=i < n, other=float("-inf"))
        more += tl.sum((x > below).to(tl.int32), 0)
        above = tl.minimum(above, tl.min(tl.where(x > below, x, float("inf")), 0))
    above = tl.where(more >= rank - 1, above, below)
    threshold = _sharpened(below, tau, gamma, shift, low, span)
    if rank > 1:
        threshold += part * (_sharpened(above, tau, gamma, shift, low, span) - threshold)

    high = tl.full([], float("-inf"), tl.float32)
    least = tl.full([], float("inf"), tl.float32)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        p = _sharpened(tl.load(s + i, mask=i < n, other=0.0), tau, gamma, shift, low, span)
        p = tl.where(p >= threshold, p, p * damp)
        tl.store(out + i, p, mask=i < n)
        high = tl.maximum(high, tl.max(tl.where(i < n, p, float("-inf")), 0))
        least = tl.minimum(least, tl.min(tl.where(i < n, p, float("inf")), 0))
    tl.debug_barrier()
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        p = tl.load(out + i, mask=i < n, other=0.0)
        tl.store(out + i, (p - least) / (high - least + EPSILON), mask=i < n)


def sharpened_relevance(s: Tensor, tau: float, gamma: float, top_p: float, damp: float) -> Tensor:
    """As the reference, of float32."""
    if s.dtype != torch.float32:
        return NotImplemented
    s = s.contiguous()
    n = s.shape[1]
    place = (1.0 - top_p) * (n - 1)
    lower = min(math.floor(place), n - 1)
    out = torch.empty_like(s)
    block = pow2(min(n, 4096))
    _sharpen[(s.shape[0],)](
        s, out, n, tau, gamma, damp, n - lower, place - lower, EPSILON=EPS, BLOCK=block
    )  # fmt: skip
    return out


@triton.jit
def _fuse(a, b, out, n, columns, eta, floor, a_s, a_n, b_s, b_n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, column = i // columns, i % columns
    x = tl.load(a + row * a_s + column * a_n, mask=i < n, other=1.0).to(tl.float32)
    y = tl.load(b + row * b_s + column * b_n, mask=i < n, other=1.0).to(tl.float32)
    fused = (1.0 - eta) * tl.log(tl.maximum(x, floor)) + eta * tl.log(tl.maximum(y, floor))
    tl.store(out + i, fused, mask=i < n)


def geometric_fusion(a: Tensor, b: Tensor, eta: float, floor: float = EPS) -> Tensor:
    """As the reference, of float32."""
    if a.dtype != torch.float32 or b.dtype != torch.float32 or a.shape != b.shape:
        return NotImplemented
    out = torch.empty(a.shape, device=a.device)
    _fuse[(cdiv(a.numel(), 1024),)](
        a, b, out, a.numel(), a.shape[1], eta, floor, *a.stride(), *b.stride(), BLOCK=1024
    )
    return out
