"""From cosines between visual tokens and words to one relevance per visual token, and its fusion with saliency."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .switch import with_triton

EPS = 1e-6


def minmax(x: Tensor, eps: float = EPS) -> Tensor:
    """(S, N) -> (S, N): (x - min) / (max - min + eps) of each row."""
    low, high = torch.aminmax(x, dim=1, keepdim=True)
    return (x - low) / (high - low + eps)


@with_triton("relevance")
def word_pool(cosines: Tensor, mask: Tensor | None, tau: float) -> Tensor:
    """(S, N, T) cosines, (S, T) words that count -> (S, N): s_i = sum_j softmax_j(S_ij / tau) S_ij.

    A row without any word is zero everywhere: it says nothing about any token.
    """
    if mask is None:
        return ((cosines / tau).softmax(2) * cosines).sum(2)
    lowest = torch.finfo(cosines.dtype).min  # -inf would make NaN of a row without words
    logits = (cosines / tau).masked_fill(~mask.unsqueeze(1), lowest)
    pooled = (logits.softmax(2) * cosines).sum(2)
    return pooled * mask.any(1, keepdim=True)


def damp_tail(p: Tensor, top_p: float, damp: float) -> Tensor:
    """(S, N): values below the (1 - top_p) quantile (linear interpolation) times `damp`."""
    n = p.shape[1]
    place = (1.0 - top_p) * (n - 1)
    low = min(math.floor(place), n - 1)
    top = p.topk(n - low, dim=1).values
    threshold = top[:, -1:]
    if n - low > 1:
        threshold = threshold + (place - low) * (top[:, -2:-1] - threshold)
    return torch.where(p >= threshold, p, p * damp)


@with_triton("relevance")
def sharpened_relevance(s: Tensor, tau: float, gamma: float, top_p: float, damp: float) -> Tensor:
    """(S, N) pooled cosines -> (S, N) in [0, 1]: minmax(damp_tail(minmax(softmax(s / tau) ^ gamma))).

    The power is taken before the exponential, so it does not underflow where the softmax of many tokens is small.
    """
    p = minmax((gamma * (s / tau).log_softmax(1)).exp())
    return minmax(damp_tail(p, top_p, damp))


@with_triton("relevance")
def geometric_fusion(a: Tensor, b: Tensor, eta: float, floor: float = EPS) -> Tensor:
    """(S, N), (S, N) in [0, 1] -> (S, N) log score: (1 - eta) log max(a, floor) + eta log max(b, floor)."""
    return (1.0 - eta) * a.clamp_min(floor).log() + eta * b.clamp_min(floor).log()
