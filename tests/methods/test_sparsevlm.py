"""SparseVLM against one image at a time in float64 and plain Python."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune.errors import TokenPruneError
from tokenprune.kernels.raters import visual_words
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from ..kernels.test_clusters import peaks_reference
from .make import LAYOUTS, make_tokens, take

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def reference(tokens: VisualTokens, i: int, keep: int, raters: list[int], recycle=0.3):
    """(kept, {slot: mean}, owner, how close the closest call was) of image i."""
    n = tokens.shape[1]
    a = tokens.text_attention[i].double()
    score = [sum(float(a[t, j]) for t in raters) / len(raters) for j in range(n)]
    order = sorted(range(n), key=lambda j: (-score[j], j))
    close = 1e3 * min((score[a] - score[b] for a, b in itertools.pairwise(order)), default=1.0)
    merged = min(math.floor(recycle * (n - keep) / 10) + 1, keep // 2) if keep < n and recycle else 0
    best, rest = order[: keep - merged], order[keep - merged :]
    owner = {j: j for j in best}
    if not merged:
        return sorted(best), {}, owner, close
    pool = rest[: max(merged, math.floor(recycle * len(rest)))]
    centres, labels, gap = peaks_reference(tokens.features[i, pool], merged)
    means = {}
    for c, centre in enumerate(centres):
        members = [pool[k] for k, label in enumerate(labels) if label == c]
        total = sum(score[j] for j in members)
        means[pool[centre]] = sum(score[j] / total * tokens.features[i, j].double() for j in members)
        owner.update(dict.fromkeys(members, pool[centre]))
    return sorted([*best, *means]), means, owner, min(close, gap)


@quick
@given(st.integers(0, 10**6), st.data(), st.sampled_from([0.0, 0.3, 1.0]))
def test_agrees_with_a_float64_loop(seed, data, recycle):
    tokens = make_tokens(LAYOUTS["ragged"], images=2, seed=seed)
    n = tokens.shape[1]
    keep = data.draw(st.integers(1, n))
    raters = visual_words(tokens.features, tokens.text, tokens.text_mask)
    selection = get_method("sparsevlm", recycle=recycle).select(tokens, keep)
    for i in range(2):
        kept, means, owner, close = reference(
            tokens, i, keep, raters[i].nonzero().flatten().tolist(), recycle
        )
        assume(close > 1e-4)
        assert selection.keep[i].nonzero().flatten().tolist() == kept
        if selection.features is None:
            assert not means
            continue
        assert selection.owner[i].tolist() == [owner.get(j, -1) for j in range(n)]
        for j in kept:
            expected = means.get(j, tokens.features[i, j].double())
            torch.testing.assert_close(selection.features[i, j].double(), expected, rtol=1e-4, atol=1e-5)


def test_raters_are_chosen_at_the_first_cut_and_stay():
    method, tokens = get_method("sparsevlm"), make_tokens(LAYOUTS["square"], images=2)
    first = method.select(tokens, 20)
    later = make_tokens(LAYOUTS["wide"], images=2, seed=1)
    fresh = method.select(take(later, [0, 1]), 9)
    later.memo = tokens.memo
    again = method.select(later, 9)
    raters = visual_words(tokens.features, tokens.text, tokens.text_mask).float()
    expected = torch.einsum("st,stn->sn", raters, later.text_attention) / raters.sum(1, keepdim=True)
    torch.testing.assert_close(again.scores, expected)
    assert not torch.allclose(fresh.scores, again.scores) and first.scores.shape == (2, 36)


def test_recycled_tokens_take_a_slot_and_none_is_appended():
    tokens = make_tokens(LAYOUTS["medium"], images=2)
    selection = get_method("sparsevlm").select(tokens, 100)
    merged = math.floor(0.3 * 400 / 10) + 1
    into = selection.owner.new_zeros(2, 500).scatter_add(
        1, selection.owner.clamp_min(0), (selection.owner >= 0).long()
    )
    assert (selection.keep.sum(1) == 100).all()
    assert ((selection.owner >= 0).sum(1) == 100 - merged + math.floor(0.3 * (400 + merged))).all()
    assert ((into > 1).sum(1) <= merged).all() and (into > 1).sum() > 0
    untouched = (into == 1) & selection.keep
    torch.testing.assert_close(selection.features[untouched], tokens.features[untouched])


def test_words_without_mask_or_meaning():
    method = get_method("sparsevlm")
    tokens = make_tokens(LAYOUTS["medium"], images=2)
    tokens.text_mask[1] = False
    spoken, silent = method.select(tokens, 50).keep
    gaps = silent.nonzero().flatten().diff()
    assert silent.sum() == 50
    tokens.memo, tokens.text, tokens.text_attention = {}, None, None
    scores = method.select(tokens, 50).scores
    even = scores[1].argsort(descending=True)[:50].sort().values
    assert even.diff().max() <= 2 * 500 / 50 and even.diff().min() >= 500 / 50 / 2
    assert not torch.equal(spoken, silent) and gaps.max() < 200


def test_attention_of_nothing_is_a_plain_mean():
    tokens = make_tokens(LAYOUTS["square"])
    tokens.text_attention = torch.zeros_like(tokens.text_attention)
    selection = get_method("sparsevlm").select(tokens, 10)
    for slot in selection.keep[0].nonzero().flatten().tolist():
        members = (selection.owner[0] == slot).nonzero().flatten()
        torch.testing.assert_close(selection.features[0, slot], tokens.features[0, members].mean(0))


@pytest.mark.parametrize("recycle", [-0.1, 1.1, True, None, float("nan")])
def test_what_is_refused(recycle):
    with pytest.raises(TokenPruneError, match="recycle"):
        get_method("sparsevlm", recycle=recycle)
