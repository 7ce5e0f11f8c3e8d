"""HoloV against plain Python; budgets that overflow a crop, and crops of every length."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune.budget import share_out
from tokenprune.errors import TokenPruneError
from tokenprune.kernels import BLOCK_BYTES, unit
from tokenprune.kernels.crops import even_runs, similarity_variance
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, image, make_tokens

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def runs_of(n, count):
    edges = [i * n // count for i in range(count + 1)]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def plain_scores(a, f, crops, alpha):
    """Scores of one image, and its crops."""
    n = len(a)
    unit_rows = f / np.linalg.norm(f, axis=1, keepdims=True)
    v = np.zeros(n)
    crops = runs_of(n, min(crops, n))
    for crop in crops:
        for i in crop:
            alike = [unit_rows[i] @ unit_rows[j] for j in crop if j != i]
            v[i] = np.var(alike) if alike else 0.0
    return a + alpha * v * a.mean() / max(v.mean(), 1e-12), crops


@quick
@given(
    st.integers(1, 60),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.09, 2.0]),
    st.integers(0, 10**6),
    st.data(),
)
def test_agrees_with_a_loop_over_crops(n, crops, alpha, seed, data):
    rng = np.random.default_rng(seed)
    a = (rng.permutation(n) + 1.0) ** data.draw(st.sampled_from([1, 6])) / n
    f = rng.normal(size=(n, 4)).astype(np.float32).astype(np.float64)
    keep, official = data.draw(st.integers(1, n)), data.draw(st.booleans())
    tokens = VisualTokens(
        torch.zeros(1, n, 2),
        None,
        saliency=torch.tensor(a, dtype=torch.float32)[None],
        vision_features=torch.tensor(f, dtype=torch.float32)[None],
    )
    method = get_method("holov", crops=crops, alpha=alpha, compat="official" if official else None)
    selection = method.select(tokens, keep)
    scores, parts = plain_scores(a, f, crops, alpha)
    torch.testing.assert_close(selection.scores[0].double(), torch.tensor(scores), rtol=1e-4, atol=1e-6)
    assume(min(np.diff(np.sort(scores)), default=1) > 1e-5)  # closer calls are float32's to make
    budgets = share_out([scores[list(part)].mean() for part in parts], keep, [len(part) for part in parts])
    ranked = a if official else scores
    wanted = {
        i for part, k in zip(parts, budgets, strict=True) for i in sorted(part, key=lambda i: -ranked[i])[:k]
    }
    got = set(selection.keep[0].nonzero().flatten().tolist())
    moved = len(got ^ wanted)
    if moved:  # two remainders that are equal to float32's last digit
        close = [sum(i in got for i in part) - k for part, k in zip(parts, budgets, strict=True)]
        ideal = [scores[list(part)].mean() for part in parts]
        rest = [keep * x / sum(ideal) % 1 for x, c in zip(ideal, close, strict=True) if c]
        assert moved == 2 and max(rest) - min(rest) < 1e-4


def test_what_a_crop_cannot_hold_goes_to_the_others():
    """All attention on the first of four crops of nine: the released code would fill up with zero vectors."""
    tokens = make_tokens(image(6, 6))
    tokens.saliency = torch.full((1, 36), 1e-3)
    tokens.saliency[0, :9] = 1.0
    method = get_method("holov", crops=4, alpha=0.0)
    kept = method.select(tokens, 18).keep[0].view(4, 9).sum(1)
    assert kept.tolist() == [9, 3, 3, 3] and method.needs == {"saliency"}


def test_equal_crops_share_evenly_and_every_crop_stays_in_view():
    tokens = make_tokens(image(24, 24))
    tokens.saliency = torch.rand(1, 576, generator=torch.Generator().manual_seed(0))
    by_crop = get_method("holov").select(tokens, 64).keep[0].view(8, 72).sum(1)
    assert by_crop.sum() == 64 and by_crop.min() >= 6 and by_crop.max() <= 10


def test_variety_counts_within_and_between_crops():
    """Two crops of equal attention; the tokens of the second are all alike."""
    tokens = make_tokens(image(4, 8))
    tokens.saliency = torch.full((1, 32), 1 / 32)
    tokens.vision_features[0, 16:] = 1.0
    first = get_method("holov", crops=2, alpha=1.0).select(tokens, 12)
    assert first.keep[0, :16].sum() == 9, "shares 1 + 2 and 1: mean(v) is half of the first crop's"
    flat = get_method("holov", crops=2, alpha=0.0).select(tokens, 12)
    assert flat.keep[0, :16].sum() == 6
    top = first.scores[0, :16].argsort(descending=True)[:9].sort().values
    assert first.keep[0, :16].nonzero().flatten().tolist() == top.tolist()
    official = get_method("holov", crops=2, alpha=1.0, compat="official").select(tokens, 12)
    assert official.keep[0].nonzero().flatten().tolist() == [*range(9), 16, 17, 18], (
        "attention alone, ties low"
    )


def test_attention_may_be_of_any_size():
    tokens = make_tokens(LAYOUTS["medium"], images=2)
    small = get_method("holov").select(tokens, 77)
    tokens.saliency = tokens.saliency * 1024
    assert torch.equal(small.keep, get_method("holov").select(tokens, 77).keep)


@pytest.mark.parametrize(("n", "count"), [(7, 3), (9, 9), (10, 1), (11, 4), (36, 5)])
@pytest.mark.parametrize("block_bytes", [1, 500, BLOCK_BYTES])
def test_variance_in_blocks_equals_loops(n, count, block_bytes):
    x = unit(torch.randn(2, n, 3, generator=torch.Generator().manual_seed(n)))
    runs = even_runs(n, count, x.device)
    assert runs.run.tolist() == [p for p, part in enumerate(runs_of(n, count)) for _ in part]
    got = similarity_variance(x, runs, block_bytes)
    for part in runs_of(n, count):
        for i in part:
            others = [j for j in part if j != i]
            wanted = (
                (x[:, others] @ x[:, i].unsqueeze(2)).var(1, correction=0) if others else torch.zeros(2, 1)
            )
            torch.testing.assert_close(got[:, i : i + 1], wanted, atol=1e-6, rtol=1e-4)


def test_without_attention_it_says_so():
    tokens = make_tokens(LAYOUTS["square"])
    tokens.saliency = None
    with pytest.raises(TokenPruneError, match="attention"):
        get_method("holov").select(tokens, 5)
