"""Columns of attention against the whole matrix written out."""

from __future__ import annotations

import pytest
import torch

from tokenprune.kernels import attention
from tokenprune.kernels.attention import column_attention

B, H, HKV, Q, K, D = 2, 6, 2, 13, 17, 8


def whole(query, key, scaling, seen, softcap=None):
    """(B, H, Q, K) softmax over what `seen` (B, Q, K) allows, zero rows where it allows nothing."""
    logits = torch.einsum("bhqd,bhkd->bhqk", query, key.repeat_interleave(H // HKV, 1)).double() * scaling
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    weights = torch.where(seen[:, None], logits.exp(), 0.0)
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)


@pytest.fixture
def states():
    g = torch.Generator().manual_seed(3)
    return torch.randn(B, H, Q, D, generator=g), torch.randn(B, HKV, K, D, generator=g)


def expected(weights, valid):
    counted = valid & (weights.sum((1, 3)) > 0)
    return (weights.mean(1) * counted[..., None]).sum(1) / counted.sum(1, keepdim=True).clamp(min=1)


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("block", [1, 3 * 4 * B * H * K, 2**26])
def test_causal_windows_padding_and_caps(states, monkeypatch, block, softcap, window):
    query, key = states
    monkeypatch.setattr(attention, "BLOCK_BYTES", block)
    real = torch.ones(B, K, dtype=torch.long)
    real[0, :7] = 0  # left padding: with K - Q = 4 tokens of the past, three of the queries see nothing
    valid = torch.arange(Q) > torch.tensor([[2], [5]])
    age = torch.arange(K - Q, K)[:, None] - torch.arange(K)
    seen = ((age >= 0) & (age < (window or K)))[None] & real.bool()[:, None]
    got = column_attention(
        query, key, 0.3, real, causal=True, window=window, valid=valid, softcap=softcap
    )  # fmt: skip
    weights = whole(query, key, 0.3, seen, softcap)
    torch.testing.assert_close(got, expected(weights, valid).float(), atol=1e-6, rtol=1e-5)
    additive = torch.zeros(B, 1, Q, K).masked_fill(~seen[:, None], torch.finfo(torch.float32).min)
    for mask in (seen[:, None], additive):  # the same as a mask that has everything in it
        again = column_attention(query, key, 0.3, mask, valid=valid, softcap=softcap)
        torch.testing.assert_close(again, got, atol=1e-6, rtol=1e-5)


def test_a_mask_and_the_future_hide_both(states):
    query, key = states
    mask = torch.randn(B, 1, Q, K, generator=torch.Generator().manual_seed(5)) > -0.5
    back = torch.ones(Q, K, dtype=torch.bool).tril(K - Q)
    wanted = expected(whole(query, key, 1.0, mask[:, 0] & back), torch.ones(B, Q, dtype=torch.bool))
    additive = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    for one in (mask, additive):
        got = column_attention(query, key, 1.0, one, causal=True)
        torch.testing.assert_close(got, wanted.float(), atol=1e-6, rtol=1e-5)


def test_where_no_query_counts_nothing_is_received(states):
    got = column_attention(*states, 1.0, causal=True, valid=torch.zeros(B, Q, dtype=torch.bool))
    assert torch.equal(got, torch.zeros(B, K))
