import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.kernels.decode import dense_step, flat_rows, places, sparse_step, top_mask

SHAPES = [(1, 4, 4, 9, 8), (2, 8, 2, 17, 4), (3, 6, 1, 5, 16)]


def case(b, h, kv, s, d, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(b, n, m, d, generator=g).to(dtype) for n, m in ((h, 1), (kv, s), (kv, s)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_a_dense_step_is_attention(shape, masked):
    q, k, v = case(*shape)
    mask = None
    if masked:
        mask = torch.zeros(shape[0], 1, 1, shape[3])
        mask[:, :, :, 0] = float("-inf")
    out, weights = dense_step(q, k, v, 0.3, mask)
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)
    assert torch.allclose(out, wanted, atol=1e-5)
    wide = k.repeat_interleave(shape[1] // shape[2], 1)
    logits = (q @ wide.transpose(2, 3) * 0.3)[:, :, 0]
    assert torch.allclose(
        weights, (logits if mask is None else logits + mask[:, :, 0]).softmax(-1), atol=1e-5
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("groups", [False, True])
def test_a_sparse_step_reads_only_its_columns(shape, groups):
    b, h, kv, s, _ = shape
    q, k, v = case(*shape)
    g = torch.Generator().manual_seed(1)
    n = max(1, s // 2)
    columns = torch.rand(*((b, kv, s) if groups else (b, s)), generator=g).argsort(-1)[..., :n]
    wide = columns if groups else columns[:, None].expand(-1, kv, -1)
    seen = torch.zeros(b, kv, s, dtype=torch.bool).scatter(2, wide, True).repeat_interleave(h // kv, 1)
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, :, None], scale=0.5, enable_gqa=True)
    assert torch.allclose(sparse_step(q, k, v, flat_rows(columns, kv, s), 0.5), wanted, atol=1e-5)
    hide = torch.zeros(b, 1, 1, n)
    hide[..., 0] = float("-inf")
    if n > 1 and not groups:
        less = sparse_step(q, k, v, flat_rows(columns[:, 1:], kv, s), 0.5)
        assert torch.allclose(sparse_step(q, k, v, flat_rows(columns, kv, s), 0.5, hide), less, atol=1e-5)


def test_half_precision_and_softcap():
    q, k, v = case(2, 8, 2, 17, 4, torch.bfloat16)
    out, weights = dense_step(q, k, v, 0.3, softcap=2.0)
    full, _ = dense_step(q.float(), k.float(), v.float(), 0.3, softcap=2.0)
    assert out.dtype == torch.bfloat16 and weights.dtype == torch.float32
    assert torch.allclose(out.float(), full, atol=3e-2)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4), st.data())
def test_the_largest_with_ties_to_the_lower_index(rows, data):
    scores = torch.tensor(rows, dtype=torch.float32)
    counts = [data.draw(st.integers(0, 6)) for _ in rows]
    mask = top_mask(scores, torch.tensor(counts), 6)
    for row, count, got in zip(rows, counts, mask.tolist()):
        wanted = sorted(range(6), key=lambda i: (-row[i], i))[:count]
        assert [i for i, kept in enumerate(got) if kept] == sorted(wanted)
    index = places(mask, 6)
    for got, row in zip(mask.tolist(), index.tolist()):
        there = [i for i, kept in enumerate(got) if kept]
        assert row == there + [-1] * (6 - len(there))
