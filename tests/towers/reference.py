"""A tower's blocks with merging, one picture and one token at a time, in float64; nothing of it is the library's."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Outcome(NamedTuple):
    """Of one picture."""

    states: list[Tensor]  # (prefix + N, D) after each block, every token with the value of its group
    members: list[list[int]]  # of each group, in the order of their places
    counts: list[int]  # groups after each block


def _same(x: Tensor) -> Tensor:
    return x


def parts(block: nn.Module, x: Tensor) -> dict:
    """Queries, keys, values (heads, n, d) of (n, D) tokens, and what comes after attention; by the library's names."""
    if hasattr(block, "self_attn"):  # transformers
        a = block.self_attn
        h = block.layer_norm1(x)
        q, k, v = (
            p(h).unflatten(1, (a.num_heads, -1)).transpose(0, 1) for p in (a.q_proj, a.k_proj, a.v_proj)
        )
        return {"q": q, "k": k, "v": v, "out": a.out_proj, "mlp": lambda y: block.mlp(block.layer_norm2(y))}
    a = block.attn
    if hasattr(a, "qkv"):  # timm
        q, k, v = a.qkv(block.norm1(x)).unflatten(1, (3, a.num_heads, -1)).permute(1, 2, 0, 3)
        return {
            "q": a.q_norm(q), "k": a.k_norm(k), "v": v, "out": lambda y: block.ls1(a.proj(y)),
            "mlp": lambda y: block.ls2(block.mlp(block.norm2(y))),
        }  # fmt: skip
    packed = F.linear(block.ln_1(x), a.in_proj_weight, a.in_proj_bias)
    q, k, v = packed.unflatten(1, (3, a.num_heads, -1)).permute(1, 2, 0, 3)
    norm_q, norm_k = getattr(a, "ln_q", _same), getattr(a, "ln_k", _same)
    return {
        "q": norm_q(q), "k": norm_k(k), "v": v, "out": lambda y: block.ls_1(a.out_proj(y)),
        "mlp": lambda y: block.ls_2(block.mlp(block.ln_2(y))),
    }  # fmt: skip


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b))


def cosine(a: list[float], b: list[float]) -> float:
    return _dot(a, b) / math.sqrt(_dot(a, a) * _dot(b, b))


def run(blocks: list[nn.Module], x: Tensor, prefix: int, rs: list[int], proportional: bool = True) -> Outcome:
    """(prefix + N, D) tokens of one picture through the blocks; block i merges rs[i] pairs."""
    total = len(x)
    groups = [[i] for i in range(total)]  # members, first the prefix; in the order of places
    places = list(range(total))
    x, states, counts = x.double(), [], []
    for block, r in zip(blocks, rs):
        p = parts(copy.deepcopy(block).double(), x)
        logits = p["q"] @ p["k"].transpose(1, 2) / math.sqrt(p["q"].shape[-1])
        if proportional:
            for j, members in enumerate(groups):
                logits[:, :, j] += math.log(len(members))
        x = x + p["out"]((logits.softmax(-1) @ p["v"]).transpose(0, 1).flatten(1))
        key = p["k"].mean(0).tolist()
        patches = list(range(prefix, len(groups)))
        evens, odds = patches[0::2], patches[1::2]
        links = []
        for a in evens:
            best, partner = -math.inf, -1
            for b in odds:
                score = cosine(key[a], key[b])
                if score > best:
                    best, partner = score, b
            links.append((best, a, partner))
        links = sorted(links, key=lambda link: (-link[0], link[1]))[:r]
        sums = {j: x[j] * len(members) for j, members in enumerate(groups)}
        for _, a, b in links:
            sums[b] = sums[b] + sums.pop(a)
            groups[b] = groups[b] + groups[a]
        left = sorted(sums)
        x = torch.stack([sums[j] / len(groups[j]) for j in left])
        groups, places = [groups[j] for j in left], [places[j] for j in left]
        x = x + p["mlp"](x)
        state = torch.empty(total, x.shape[1], dtype=torch.float64)
        for value, members in zip(x, groups):
            state[members] = value
        states.append(state)
        counts.append(len(groups))
    return Outcome(states, [sorted(g) for g in groups], counts)
