"""PruMerge and PruMerge+ against plain Python, and what their counts and lengths do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenprune.errors import TokenPruneError
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, image, make_tokens

quick = settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def chosen(a, keep, plus, budget):
    """The centres of one image."""
    n = len(a)
    falling = sorted(range(n), key=lambda i: (-a[i], i))
    q1, q3 = np.quantile(a, [0.25, 0.75])
    outliers = [i for i in falling if a[i] > q3 + 1.5 * (q3 - q1)] or falling[:1]
    if budget == "adaptive":
        return sorted({*outliers, *(range(0, n, n // len(outliers)) if plus else ())})
    if not plus:
        return sorted(falling[:keep])
    outliers = outliers[:keep]
    others = [i for i in range(n) if i not in outliers]
    missing = keep - len(outliers)
    return sorted([*outliers, *(others[i * len(others) // missing] for i in range(missing))])


def plain(x, a, keys, separators, keep, plus, budget, neighbours=32, official=False):
    """{kept index: merged feature} and the owner of every token, token by token."""
    n = len(a)
    extra = official and (budget == "adaptive" or 1 < keep < n)
    centres = chosen(a, keep - (extra and budget == "fixed"), plus, budget)
    joins = [j for j in range(n) if j not in centres and j not in separators]
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    out, wanted = {}, {j: [] for j in joins}
    for i in centres:
        near = (
            sorted(joins, key=lambda j: (-(unit[i] @ unit[j]), j))[:neighbours] if i not in separators else []
        )
        total = x[i] + sum((a[j] * x[j] for j in near), 0 * x[i])
        out[i] = total if official else total / (1 + sum(a[j] for j in near))
        for j in near:
            wanted[j].append((-(unit[i] @ unit[j]), i))
    owner = [i if i in centres else -1 for i in range(n)]
    for j, offers in wanted.items():
        owner[j] = min(offers)[1] if offers else -1
    if extra and len(centres) < n:
        rest = [j for j in range(n) if j not in centres]
        slot = min(rest, key=lambda j: (j in separators, -a[j], j))
        out[slot] = sum((a[j] * x[j] for j in joins), 0 * x[slot]) if joins else x[slot]
        owner = [slot if o < 0 and j in joins else o for j, o in enumerate(owner)]
        owner[slot] = slot
    return out, owner


@quick
@given(
    st.sampled_from([k for k in LAYOUTS if k != "medium"]),
    st.integers(0, 10**6),
    st.data(),
    st.booleans(),
    st.sampled_from(["adaptive", "fixed"]),
    st.sampled_from([{}, {"neighbours": 3}, {"compat": "official"}, {"compat": "official", "neighbours": 2}]),
)
def test_agrees_with_a_loop_over_tokens(layout, seed, data, plus, budget, hyper):
    tokens = make_tokens(LAYOUTS[layout], images=2, seed=seed)
    tokens.saliency = tokens.saliency ** data.draw(st.sampled_from([1, 8]))  # a long tail has outliers
    keep = data.draw(st.integers(1, tokens.shape[1]))
    selection = get_method("prumerge", plus=plus, budget=budget, **hyper).select(tokens, keep)
    separators = {i for i, y in enumerate(tokens.coords[:, 2].tolist()) if y < 0}
    for s in range(2):
        arrays = [t[s].double().numpy() for t in (tokens.features, tokens.saliency, tokens.vision_keys)]
        official = "compat" in hyper
        expected, owner = plain(
            *arrays, separators, keep, plus, budget, hyper.get("neighbours", 32), official
        )
        assert selection.keep[s].nonzero().flatten().tolist() == sorted(expected)
        assert selection.owner[s].tolist() == owner
        for i, value in expected.items():
            torch.testing.assert_close(
                selection.features[s, i].double(), torch.tensor(value), rtol=1e-4, atol=1e-5
            )


def spotted(places, n=576) -> VisualTokens:
    """Attention of 1 on a few places, and a smooth ripple elsewhere."""
    tokens = make_tokens(image(24, n // 24))
    tokens.saliency = 0.01 + 0.001 * torch.sin(torch.arange(n))[None]
    tokens.saliency[0, places] = 1.0
    return tokens


def test_the_content_decides_the_count():
    few, many = spotted([5, 99, 300]), spotted(list(range(7, 576, 19)))
    method = get_method("prumerge")
    assert not method.exact and method.num_kept(576) is None
    for tokens, count in ((few, 3), (many, 30)):
        for keep in (1, 64, 576):
            assert method.select(tokens, keep).keep.sum() == count
    both = VisualTokens(**{
        name: torch.cat([getattr(few, name), getattr(many, name)]) for name in ("features", "saliency", "vision_keys")
    }, grid=None)  # fmt: skip
    assert method.select(both, 1).keep.sum(1).tolist() == [3, 30]


def test_plus_adds_a_stride_of_one_over_the_share_of_outliers():
    kept = get_method("prumerge_plus").select(spotted([5, 99, 300]), 1).keep[0]
    assert kept.nonzero().flatten().tolist() == [0, 5, 99, 192, 300, 384]


def test_a_fixed_budget_with_plus_is_outliers_and_even_spacing():
    method = get_method("prumerge+", budget="fixed")
    assert method.exact and method.name == "prumerge_plus"
    kept = method.select(spotted([0, 1, 2, 3]), 8).keep[0]
    assert kept.nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 147, 290, 433]
    assert method.select(spotted([0, 1, 2, 3]), 2).keep[0].nonzero().flatten().tolist() == [0, 1]


def test_flat_attention_keeps_one_token():
    tokens = make_tokens(LAYOUTS["square"], images=2)
    tokens.saliency = torch.full_like(tokens.saliency, 1 / 36)
    assert get_method("prumerge").select(tokens, 9).keep.sum(1).tolist() == [1, 1]
    assert get_method("prumerge_plus").select(tokens, 9).keep[:, 0].all()


def test_only_the_released_sum_grows():
    tokens = make_tokens(LAYOUTS["square"])
    tokens.features = torch.ones_like(tokens.features)
    grown = {}
    for compat in (None, "official"):
        selection = get_method("prumerge", budget="fixed", compat=compat, neighbours=36).select(tokens, 5)
        grown[compat] = selection.features[selection.keep][:, 0]
    torch.testing.assert_close(grown[None], torch.ones(5))
    assert (grown["official"] > 1.5).sum() == 5, "four centres, and the sum of what is dropped"


def test_the_sum_of_what_is_dropped_takes_a_slot_of_the_budget():
    tokens = make_tokens(LAYOUTS["square"])
    by_attention = tokens.saliency[0].argsort(descending=True)
    selection = get_method("prumerge", budget="fixed", compat="official").select(tokens, 7)
    assert set(selection.keep[0].nonzero().flatten().tolist()) == set(by_attention[:7].tolist())
    dropped = by_attention[6:]
    total = (tokens.saliency[0, dropped, None] * tokens.features[0, dropped]).sum(0)
    torch.testing.assert_close(selection.features[0, by_attention[6]], total)


def test_everything_kept_is_unchanged():
    tokens = make_tokens(LAYOUTS["newlines"])
    for hyper in ({}, {"plus": True}, {"compat": "official"}):
        full = get_method("prumerge", budget="fixed", **hyper).select(tokens, tokens.shape[1])
        assert full.keep.all() and torch.equal(full.features, tokens.features)


def test_errors_name_what_is_missing():
    tokens = make_tokens(LAYOUTS["square"])
    tokens.saliency = None
    with pytest.raises(TokenPruneError, match="attention"):
        get_method("prumerge").select(tokens, 5)
    with pytest.raises(TokenPruneError, match="plus="):
        get_method("prumerge", plus=1)
