"""DivPrune against one image at a time in float64 and plain Python."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .greedy_reference import distances, farthest
from .make import LAYOUTS, make_tokens

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@quick
@given(st.integers(0, 10**6), st.data())
def test_agrees_with_a_float64_loop(seed, data):
    tokens = make_tokens(LAYOUTS["wide"], images=2, seed=seed)
    keep = data.draw(st.integers(1, 33))
    selection = get_method("divprune").select(tokens, keep)
    for i in range(2):
        order, gain, close = farthest(tokens.features[i], keep)
        assume(close > 1e-5)
        assert selection.keep[i].nonzero().flatten().tolist() == sorted(order)
        np.testing.assert_allclose(selection.scores[i].numpy(), gain, atol=1e-5)


def test_kept_sets_are_nested():
    tokens = make_tokens(LAYOUTS["square"], images=3)
    masks = [get_method("divprune").select(tokens, k).keep for k in range(1, 37)]
    for small, large in itertools.pairwise(masks):
        assert not (small & ~large).any()


def test_scale_does_not_count_and_one_of_every_kind_stays():
    g = torch.Generator().manual_seed(0)
    kinds = torch.randn(1, 8, 16, generator=g)
    copies = kinds.repeat(1, 5, 1) * (0.1 + torch.rand(1, 40, 1, generator=g))
    kept = get_method("divprune").select(VisualTokens(copies, None), 8).keep[0].nonzero().flatten()
    assert {int(i) % 8 for i in kept} == set(range(8))


@pytest.mark.parametrize("keep", [4, 9])
def test_more_diverse_than_chance(keep):
    tokens = make_tokens(LAYOUTS["square"], images=6)

    def apart(name: str) -> float:
        out = []
        for x, mask in zip(tokens.features, get_method(name).select(tokens, keep).keep):
            d = distances(x[mask])
            out.append(min(d[i][j] for i in range(keep) for j in range(i)))
        return sum(out) / len(out)

    assert apart("divprune") > apart("random") + 0.1


def test_separators_are_one_kind():
    tokens = make_tokens(LAYOUTS["newlines"], images=2)
    newline = tokens.coords[:, 3] < 0
    tokens.features[:, newline] = tokens.features[:, newline][:, :1]
    kept = get_method("divprune").select(tokens, 20).keep
    assert (kept[:, newline].sum(1) <= 1).all()
    assert get_method("divprune").select(tokens, 24).keep.all()
