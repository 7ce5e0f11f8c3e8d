"""One call of each kernel that has a Triton version, of any size and dtype. Who draws the sizes is left open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tokenprune import kernels
from tokenprune.kernels import assign, attention, clusters, decode, dpp, entropy, farthest, maxmin, progress
from tokenprune.kernels.gram import Gram


class Draw(Protocol):
    """Where the sizes of a call come from."""

    def size(self, low: int, high: int) -> int: ...
    def flag(self) -> bool: ...


class Call(NamedTuple):
    """`function(*arguments(dtype), **named)`; arguments are made anew each time, as some kernels write to them."""

    function: Any
    arguments: Callable[[torch.dtype], tuple[Any, ...]]
    named: dict[str, Any] = {}  # never written to


CASES: dict[str, Callable[[Draw, str], Call]] = {}


def case(make: Callable[[Draw, str], Call]) -> Callable[[Draw, str], Call]:
    CASES[make.__name__] = make
    return make


def noise(seed: int, *shape: int, device: str = "cpu", positive: bool = False) -> Tensor:
    """float32, the same on every device."""
    g = torch.Generator().manual_seed(seed)
    return (torch.rand if positive else torch.randn)(shape, generator=g).to(device)


@case
def word_pool(draw: Draw, device: str) -> Call:
    s, n, t, masked = draw.size(1, 3), draw.size(1, 40), draw.size(1, 20), draw.flag()
    mask = noise(1, s, t, device=device, positive=True) > 0.4 if masked else None
    return Call(kernels.word_pool, lambda dtype: (0.3 * noise(2, s, n, t, device=device), mask, 0.05))


@case
def sharpened_relevance(draw: Draw, device: str) -> Call:
    s, n = draw.size(1, 3), draw.size(1, 300)
    top_p = [0.0, 0.005, 0.1, 1.0][draw.size(0, 3)]
    scores = 0.1 * noise(n, s, n, device=device)
    return Call(kernels.sharpened_relevance, lambda dtype: (scores, 0.05, 2.5, top_p, 0.1))


@case
def geometric_fusion(draw: Draw, device: str) -> Call:
    s, n = draw.size(1, 3), draw.size(1, 300)
    a, b = (noise(i, s, n, device=device, positive=True) for i in (1, 2))
    return Call(kernels.geometric_fusion, lambda dtype: (a, b.masked_fill(b < 0.2, 0), 0.3))


@case
def max_similarity(draw: Draw, device: str) -> Call:
    groups, n, c = draw.size(1, 3), draw.size(2, 90), draw.size(1, 40)
    x = noise(n, groups, n, c, device=device)
    return Call(kernels.max_similarity, lambda dtype: (x.to(dtype)[:, 0::2], x.to(dtype)[:, 1::2]))


@case
def best_match(draw: Draw, device: str) -> Call:
    s, a, b, c = draw.size(1, 3), draw.size(1, 70), draw.size(1, 70), draw.size(1, 40)
    x, y = noise(a, s, a, c, device=device), noise(b + 1, s, b, c, device=device)
    sorts = None
    if draw.flag():
        sorts = tuple(noise(i, s, v.shape[1], device=device) > 0 for i, v in ((1, x), (2, y)))
    return Call(assign.best_match, lambda dtype: (x.to(dtype), y.to(dtype), sorts))


@case
def group_means(draw: Draw, device: str) -> Call:
    s, n, d, count = draw.size(1, 3), draw.size(1, 60), draw.size(1, 300), draw.size(1, 9)
    values, weight = noise(n, s, n, d, device=device), noise(3, s, n, device=device, positive=True)
    label = (noise(4, s, n, device=device, positive=True) * count).long()
    weight = weight.masked_fill(weight < 0.3, 0)
    return Call(clusters.group_means, lambda dtype: (values.to(dtype), label, count, weight))


@case
def segment_mean(draw: Draw, device: str) -> Call:
    s, n, d, count = draw.size(1, 3), draw.size(1, 60), draw.size(1, 300), draw.size(1, 9)
    weighted = draw.flag()
    values, weight = noise(n, s, n, d, device=device), noise(3, n, device=device) > -0.5
    segment = (noise(4, n, device=device, positive=True) * count).long()
    return Call(
        kernels.segment_mean, lambda dtype: (values.to(dtype), segment, count, weight if weighted else None)
    )


def greedy(draw: Draw, device: str) -> tuple[Tensor, int, int, int]:
    s, n, c = draw.size(1, 3), draw.size(1, 70), draw.size(2, 40)
    return kernels.unit(noise(n, s, n, c, device=device)), s, n, draw.size(1, n)


@case
def farthest_walk(draw: Draw, device: str) -> Call:
    x, s, n, count = greedy(draw, device)
    weight = noise(1, s, n, device=device, positive=True)
    bonus = -8.0 * (noise(2, s, n, device=device) > 1).float()

    def arguments(dtype: torch.dtype) -> tuple[Any, ...]:
        gram = Gram(x)
        return (1 - gram.nearest()).clamp_(0, 2), weight, bonus.clone(), gram, count, 2.0

    return Call(maxmin.walk, arguments)


@case
def determinant_walk(draw: Draw, device: str) -> Call:
    x, s, n, count = greedy(draw, device)
    quality = noise(1, s, n, device=device, positive=True)
    quality = quality.masked_fill(quality < 0.1, 0).log()
    later = -1e38 * (1 + torch.arange(n, device=device).expand(s, n) / n)

    def arguments(dtype: torch.dtype) -> tuple[Any, ...]:
        gram = Gram(x)
        return quality, later, gram.diagonal(), gram, count

    return Call(dpp.walk, arguments)


@case
def frame_picks(draw: Draw, device: str) -> Call:
    x, s, n, count = greedy(draw, device)
    weighted, starts = draw.flag(), draw.flag()
    weight = noise(1, s, n, device=device, positive=True) + 0.1 if weighted else None
    near = (
        noise(2, s, n, device=device, positive=True)
        if not starts
        else torch.full((s, n), -4.0, device=device)
    )

    def arguments(dtype: torch.dtype) -> tuple[Any, ...]:
        picker = farthest.Picker(x, near.clone(), weight, None, starts)
        return picker.near, picker, count

    return Call(farthest.take, arguments)


def head_vectors(draw: Draw, device: str, most: int, tokens: int) -> Tensor:
    s, h, n, d = draw.size(1, tokens), draw.size(1, most), draw.size(1, tokens), draw.size(1, 70)
    q = noise(h, s, h, n, d, device=device) + 3 * noise(1, 1, 1, n, d, device=device)
    return torch.cat([q[:, :, :1] * 0 + 2, q], 2)  # a token whose heads all agree


@case
def entropy_by_polynomial(draw: Draw, device: str) -> Call:
    q, normalize, terms = head_vectors(draw, device, 20, 2), draw.flag(), draw.size(2, 9)
    return Call(entropy.matrix_entropy, lambda dtype: (q.to(dtype), normalize, "chebyshev", terms))


@case
def entropy_by_eigenvalues(draw: Draw, device: str) -> Call:
    most = (12, 1) if device == "cpu" else (31, 2)
    q, normalize = head_vectors(draw, device, *most), draw.flag()
    if device == "cpu":  # the interpreter needs seconds for the rotations of one token
        q = q[:, :, 1:]
    return Call(entropy.matrix_entropy, lambda dtype: (q.to(dtype), normalize))


def heads(draw: Draw, device: str, queries: int) -> tuple[Tensor, Tensor, Tensor | None, float]:
    """Queries, keys that are a slice of a longer buffer, and no mask, a boolean or an additive one."""
    b, kv, group, keys, d = (
        draw.size(1, 2),
        draw.size(1, 3),
        draw.size(1, 5),
        draw.size(1, 140),
        draw.size(1, 70),
    )
    kind = draw.size(0, 2)
    query = noise(d, b, kv * group, queries, d, device=device)
    key = noise(keys, b, kv, keys + 3, d, device=device)[:, :, :keys]
    shut = noise(5, b, 1, queries, keys, device=device) > 0.5
    shut[..., 0] = False
    mask = [None, ~shut, torch.zeros(shut.shape, device=device).masked_fill(shut, -torch.inf)][kind]
    return query, key, mask, d**-0.5


@case
def row_attention(draw: Draw, device: str) -> Call:
    q, k, mask, scaling = heads(draw, device, 1)
    return Call(attention.row_attention, lambda dtype: (q.to(dtype), k.to(dtype), scaling, mask))


@case
def received_attention(draw: Draw, device: str) -> Call:
    q, k, mask, scaling = heads(draw, device, draw.size(1, 90))
    return Call(attention.received_attention, lambda dtype: (q.to(dtype), k.to(dtype), scaling, mask))


@case
def column_attention(draw: Draw, device: str) -> Call:
    """All that may hide: a mask of any kind with a query that sees nothing, the future, a window, padding queries."""
    queries = draw.size(1, 90)
    q, k, mask, scaling = heads(draw, device, queries)
    b, keys, kind = q.shape[0], k.shape[2], draw.size(0, 3)
    if kind < 3 and mask is not None:
        lowest = [-torch.inf, torch.finfo(torch.float32).min][kind % 2]
        mask[:, :, -1] = False if mask.dtype == torch.bool else lowest
    elif kind == 3:  # as FlashAttention is told of padding
        mask = noise(8, b, keys, device=device) > 0
    causal, window = draw.flag(), draw.size(1, 60) if draw.flag() else None
    valid = noise(7, b, queries, device=device) > [0.0, 9.0, -9.0][draw.size(0, 2)] if draw.flag() else None
    more = {"causal": causal, "window": window, "valid": valid, "softcap": 2.0 if draw.flag() else None}
    return Call(attention.column_attention, lambda dtype: (q.to(dtype), k.to(dtype), scaling, mask), more)


@case
def query_attention(draw: Draw, device: str) -> Call:
    q, k, mask, scaling = heads(draw, device, draw.size(1, 9))
    softcap = 2.0 if draw.flag() else None
    if mask is not None and mask.dtype != torch.bool:  # as transformers writes it, a row of it shut
        mask = mask.clamp_min(torch.finfo(torch.float32).min)
        mask[:, :, -1] = torch.finfo(torch.float32).min
    return Call(attention.query_attention, lambda dtype: (q.to(dtype), k.to(dtype), scaling, mask, softcap))


@case
def novelty(draw: Draw, device: str) -> Call:
    s, t, n, d = draw.size(1, 2), draw.size(2, 4), draw.size(1, 80), draw.size(1, 70)
    x = noise(n, s, t, n, d, device=device)
    x[:, 1, : n // 2] = x[:, 0, : n // 2]  # what stands still adds nothing
    return Call(progress.novelty, lambda dtype: (x.to(dtype),))


@case
def dense_step(draw: Draw, device: str) -> Call:
    q, k, mask, scaling = heads(draw, device, 1)
    v, softcap = noise(9, *k.shape[:3], draw.size(1, 70), device=device), 3.0 if draw.flag() else None
    return Call(
        decode.dense_step, lambda dtype: (q.to(dtype), k.to(dtype), v.to(dtype), scaling, mask, softcap)
    )


def chosen(draw: Draw, device: str, function: Any) -> Call:
    q, k, mask, scaling = heads(draw, device, 1)
    b, kv, keys, _ = k.shape
    n, of_heads, softcap = draw.size(1, keys), draw.flag(), 3.0 if draw.flag() else None
    v = noise(9, b, kv, keys, draw.size(1, 70), device=device)
    columns = noise(6, *((b, kv, keys) if of_heads else (b, keys)), device=device).argsort(-1)[..., :n]
    rows = decode.flat_rows(columns, kv, keys)
    narrow = None if mask is None else mask[..., :n]
    return Call(
        function, lambda dtype: (q.to(dtype), k.to(dtype), v.to(dtype), rows, scaling, narrow, softcap)
    )


@case
def partial_step(draw: Draw, device: str) -> Call:
    return chosen(draw, device, decode.partial_step)


@case
def sparse_step(draw: Draw, device: str) -> Call:
    return chosen(draw, device, decode.sparse_step)


@case
def top_mask(draw: Draw, device: str) -> Call:
    rows, groups, n = draw.size(1, 2), draw.size(1, 2), draw.size(1, 200)
    scores = (noise(n, rows, groups, n, device=device, positive=True) * 12).floor() / 12 - 0.2  # full of ties
    count = (noise(2, rows, 1, device=device, positive=True) * (n + 1)).long().expand(rows, groups)
    return Call(decode.top_mask, lambda dtype: (scores, count, n))


@case
def places(draw: Draw, device: str) -> Call:
    rows, n, most = draw.size(1, 3), draw.size(1, 200), draw.size(1, 220)
    mask = noise(n, rows, 2, n, device=device) > 0.5
    mask[0] = False
    return Call(decode.places, lambda dtype: (mask, most))


HALF = [
    name
    for name in CASES
    if name
    not in ("word_pool", "sharpened_relevance", "geometric_fusion", "frame_picks", "top_mask", "places")
    and not name.endswith("walk")
]
"""Cases whose arguments come in half precision, too; the others are float32 wherever they are called."""
