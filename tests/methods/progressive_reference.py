"""`progressive` token by token in float64, from its formulas."""

from __future__ import annotations

import math

import numpy as np


def toy() -> np.ndarray:
    """(4, 6, 4): tokens 0, 1, 4 and 5 stand still, 2 and 3 move, one appears at the end."""
    x = np.zeros((4, 6, 4))
    for t, n, d in np.ndindex(x.shape):
        x[t, n, d] = math.cos(0.7 * n + 1.3 * d + 0.4 * n * d)
        if n in (2, 3):
            x[t, n, d] += 1.2 * t * math.sin(0.9 * t + 0.5 * n + 1.1 * d)
    x[3, 5] = (2, -1, 0.5, 1)
    return x


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def adaptive_counts(x: np.ndarray, total: int, k_min: int = 2) -> list[int]:
    """Largest remainder of the novelty; parts that overflow are filled in turns."""
    u, (frames, n, _) = unit(x), x.shape
    nu = [0.9 * n]
    for t in range(1, frames):
        nu.append(sum(max(0.0, 1 - max(float(a @ b) for b in u[t - 1])) for a in u[t]))
    least = min(k_min, total // frames)
    out, left, free = [least] * frames, total - least * frames, [t for t in range(frames) if least < n]
    while left:
        ideal = {t: left * nu[t] / sum(nu[i] for i in free) for t in free}
        full = [t for t in free if ideal[t] >= n - out[t]]
        if full:
            for t in full:
                left, out[t] = left - (n - out[t]), n
            free = [t for t in free if t not in full]
            continue
        for t in free:
            out[t] += int(ideal[t])
            left -= int(ideal[t])
        for t in sorted(free, key=lambda t: (int(ideal[t]) - ideal[t], t))[:left]:
            out[t] += 1
        left = 0
    return out


def progressive(x, counts=None, eps=None, k_min=2, window=None, cut=None, sigma=None, gamma=0.0):
    """(T, N, D) -> kept indices of each frame, ascending, and how close the closest call was."""
    u, kept, memory, close = unit(x), [], [], math.inf
    for t, frame in enumerate(u):
        n, picks = len(frame), []
        if window is not None:
            memory = [(f, v) for f, v in memory if f >= t - window]
        if memory and cut is not None and (counts is None or counts[t]):
            mean = float(np.mean([1 - max(float(a @ v) for _, v in memory) for a in frame]))
            close = min(close, abs(mean - cut))
            memory = [] if mean > cut else memory
        seen = [v for _, v in memory]
        while len(picks) < (n if counts is None else counts[t]):
            rest = [i for i in range(n) if i not in picks]
            if seen:
                rho = {i: 1 - max(float(frame[i] @ v) for v in seen) for i in rest}
                if counts is None and len(picks) >= k_min:
                    close = min(close, abs(max(rho.values()) - eps))
                    if max(rho.values()) <= eps:
                        break
                score = {i: rho[i] * (sigma[t][i] ** gamma if gamma else 1.0) for i in rest}
            else:
                score = {i: float(unit(frame.mean(0)) @ frame[i]) for i in rest}
            order = sorted(rest, key=lambda i: (-score[i], i))
            if len(order) > 1:
                close = min(close, score[order[0]] - score[order[1]])
            picks.append(order[0])
            seen.append(frame[order[0]])
        memory += [(t, frame[i]) for i in picks]
        kept.append(sorted(picks))
    return kept, close
