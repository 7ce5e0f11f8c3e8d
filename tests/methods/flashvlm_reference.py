"""FlashVLM one image at a time in float64 and plain Python, from the formulas. Also tells how close a call was."""

from __future__ import annotations

import itertools
import math

import numpy as np


def minmax(x, eps=1e-6):
    return (x - x.min()) / (x.max() - x.min() + eps)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pooled(projected, text, word_tau=0.05):
    out = []
    for p in unit(projected):
        cosines = [float(p @ t) for t in unit(text)]
        weights = [math.exp(c / word_tau) for c in cosines]
        out.append(sum(w * c for w, c in zip(weights, cosines, strict=True)) / sum(weights))
    return np.array(out)


def score(saliency, projected=None, text=None, *, eta=0.5, token_tau=0.01, gamma=2.5, top_p=0.005, damp=0.1):
    if text is None:
        p = np.zeros(len(saliency))
    else:
        s = pooled(projected, text)
        p = np.exp((s - s.max()) / token_tau)
        p = minmax((p / p.sum()) ** gamma)
        threshold = np.quantile(p, 1 - top_p)
        p = minmax(np.array([v if v >= threshold else damp * v for v in p]))
    a = np.maximum(minmax(saliency), 1e-6)
    return np.exp((1 - eta) * np.log(a) + eta * np.log(np.maximum(p, 1e-6)))


def falling(values):
    """Places by falling value, ties to the lower one."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))


def gap(values):
    """The smallest difference between two of the values."""
    ordered = sorted(values)
    return min((b - a for a, b in itertools.pairwise(ordered)), default=math.inf)


def dedup(features, rest, keep, *, share=0.0, step=8, window=None):
    """(kept indices, smallest gap between two similarities that were ranked)."""
    f, rest, close = unit(features), list(rest), math.inf

    def runs(n):
        return 1 if window is None else -(-n // max(window, window * 1024 // n))

    if rest and runs(len(rest)) > 1:
        rest = sorted(rest)
    while len(rest) > keep:
        n = len(rest)
        drop = min(max(step, math.ceil(share * n)), n - keep, (n + 1) // 2)
        count = runs(n)
        pairs = n // count // 2
        if count == 1 or count * pairs < drop:
            count, chunks, late = 1, [rest], []
        else:
            size = 2 * pairs
            chunks = [rest[i * size : (i + 1) * size] for i in range(count)]
            late = rest[count * size :]
        best, a, b = [], [], []
        for chunk in chunks:
            even, odd = chunk[0::2], chunk[1::2]
            best += [max(float(f[i] @ f[j]) for j in odd) for i in even]
            a, b = a + even, b + odd
        close = min(close, gap(best))
        rest = [a[i] for i in falling(best)[drop:]] + b + late
        if count > 1:
            rest = sorted(rest)
    return rest, close


def select(saliency, vision, keep, projected=None, text=None, *, eta=0.5, important_ratio=0.5, **schedule):
    """(sorted kept indices, scores, smallest gap between similarities, between log scores)."""
    scores = score(saliency, projected, text, eta=eta)
    order = falling(scores)
    first = int(important_ratio * keep)
    rest, close = dedup(vision, order[first:], keep - first, **schedule)
    return sorted(order[:first] + rest), scores, close, gap(np.log(scores))
