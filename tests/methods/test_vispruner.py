"""VisPruner against a plain float64 reference and the cases that the formula decides by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune.errors import TokenPruneError
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from . import flashvlm_reference as reference
from .make import LAYOUTS, image, make_tokens

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def tokens_of(saliency, vision) -> VisualTokens:
    vision = torch.as_tensor(np.asarray(vision), dtype=torch.float32)[None]
    saliency = torch.as_tensor(np.asarray(saliency), dtype=torch.float32)[None]
    return VisualTokens(vision, None, saliency=saliency, vision_features=vision)


def kept(method, tokens, keep) -> list[int]:
    return method.select(tokens, keep).keep[0].nonzero().flatten().tolist()


def eight_a_turn(saliency, vision, keep, ratio):
    """The released schedule in plain Python: (kept, smallest gap between two similarities of one turn)."""
    order = sorted(range(len(saliency)), key=lambda i: (-saliency[i], i))
    first = int(ratio * keep + 1e-9)
    chosen, rest, close = order[:first], order[first:], float("inf")
    directions = vision / np.linalg.norm(vision, axis=1, keepdims=True)
    while len(rest) > keep - first:
        even, odd = rest[0::2], rest[1::2]
        drop = min(8, len(rest) - (keep - first), len(even))
        alike = [max((float(directions[i] @ directions[j]) for j in odd), default=-1.0) for i in even]
        close = min(close, reference.gap(alike))
        worst_first = sorted(range(len(even)), key=lambda e: (-alike[e], e))
        rest = [even[e] for e in worst_first[drop:]] + odd
    return sorted(chosen + rest), close


@st.composite
def problems(draw):
    n = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    vision = rng.normal(size=(n, 5)).astype(np.float32).astype(np.float64)
    saliency = rng.permutation(n) / n
    return saliency, vision, draw(st.integers(1, n)), draw(st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]))


@quick
@given(problems())
def test_the_released_schedule_equals_a_plain_reference(problem):
    saliency, vision, keep, ratio = problem
    expected, close = eight_a_turn(saliency, vision, keep, ratio)
    assume(close > 2e-6)  # closer calls are float32's to make
    method = get_method("vispruner", important_ratio=ratio, compat="official")
    assert kept(method, tokens_of(saliency, vision), keep) == expected


@quick
@given(problems(), st.sampled_from([(64, 8), (1, 2), (None, 3)]))
def test_the_default_schedule_equals_a_plain_reference(problem, schedule):
    saliency, vision, keep, ratio = problem
    window, step = schedule
    order = sorted(range(len(saliency)), key=lambda i: (-saliency[i], i))
    first = int(ratio * keep + 1e-9)
    rest, close = reference.dedup(
        vision, order[first:], keep - first, share=0.125, step=step, window=window
    ) if first < keep else ([], 1.0)  # fmt: skip
    assume(close > 2e-6)
    method = get_method("vispruner", important_ratio=ratio, window=window, dedup_step=step)
    assert kept(method, tokens_of(saliency, vision), keep) == sorted(order[:first] + rest)


def test_it_is_flashvlm_without_a_question():
    tokens = make_tokens(image(12, 12), images=2)
    for hyper in ({}, {"compat": "official"}, {"important_ratio": 0.75}):
        ours = get_method("vispruner", **hyper).select(tokens, 30)
        assert torch.equal(ours.keep, get_method("flashvlm", eta=0.0, **hyper).select(tokens, 30).keep)
        assert torch.equal(ours.scores, tokens.saliency)


def test_attention_alone_is_a_top_k_and_reads_no_features():
    method = get_method("vispruner", important_ratio=1.0)
    assert method.needs == {"saliency"} and get_method("vispruner").needs == {"saliency", "vision_features"}
    tokens = make_tokens(LAYOUTS["square"])
    tokens.vision_features = None
    top = tokens.saliency[0].topk(7).indices.sort().values
    assert kept(method, tokens, 7) == top.tolist()


def test_exact_duplicates_go_before_anything_else():
    """Ten tokens, every direction twice and next to each other in the order of attention."""
    vision = np.eye(5).repeat(2, 0) * np.arange(1, 11)[:, None]  # lengths do not matter
    method = get_method("vispruner", important_ratio=0.0, compat="official")
    assert kept(method, tokens_of(-np.arange(10.0), vision), 5) == [1, 3, 5, 7, 9]


def test_without_attention_it_says_so():
    tokens = make_tokens(LAYOUTS["square"])
    tokens.saliency = None
    with pytest.raises(TokenPruneError, match="attention"):
        get_method("vispruner").select(tokens, 5)
