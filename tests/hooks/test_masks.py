"""Masks cut down to what exists physically, against loops over every entry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenprune.errors import PatchError
from tokenprune.hooks.masks import causal, remap

quick = settings(max_examples=40, deadline=None, derandomize=True)
LOWEST = torch.finfo(torch.float32).min


@st.composite
def ascending(draw, size: int, batch: int, most: int = 6):
    """(batch, P) ascending indices below `size`, filler (-1) on the left of shorter rows; P <= most."""
    rows = [sorted(draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=most))) for _ in range(batch)]
    width = max(map(len, rows))
    return torch.tensor([[-1] * (width - len(r)) + r for r in rows])


@st.composite
def cases(draw):
    batch, q, k = draw(st.integers(1, 3)), draw(st.integers(1, 7)), draw(st.integers(1, 8))
    heads, rows_of = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, batch]))
    boolean = draw(st.booleans())
    mask = torch.rand(rows_of, heads, q, k, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) > 0.4
    if not boolean:
        mask = torch.zeros(mask.shape).masked_fill(~mask, LOWEST)
    rows = draw(st.one_of(st.none(), ascending(q, batch)))
    columns = draw(st.one_of(st.none(), ascending(k, batch, 8)))
    if columns is not None and draw(st.booleans()):
        columns = columns - 2  # older than the window: before the mask's first column
    return mask, rows, columns, batch


@quick
@given(cases())
def test_remap_picks_every_entry(case):
    mask, rows, columns, batch = case
    got = remap(mask, rows, columns, batch)
    full = mask.expand(batch, -1, -1, -1)
    r = torch.arange(mask.shape[2]).expand(batch, -1) if rows is None else rows
    c = torch.arange(mask.shape[3]).expand(batch, -1) if columns is None else columns
    hidden = False if mask.dtype == torch.bool else LOWEST
    if rows is None and columns is None:
        assert torch.equal(got.expand_as(full), full)
        return
    assert got.dtype == mask.dtype
    got = got.expand(batch, -1, -1, -1)
    assert got.shape[2:] == (r.shape[1], c.shape[1])
    for b in range(batch):
        for i in range(r.shape[1]):
            if r[b, i] < 0:
                continue  # a filler row may see anything: nobody reads it
            for j in range(c.shape[1]):
                wanted = hidden if c[b, j] < 0 else full[b, :, r[b, i], c[b, j]]
                assert (got[b, :, i, j] == wanted).all()


@quick
@given(st.data())
def test_padding_masks_lose_columns_only(data):
    batch, k = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 8))
    mask = torch.randint(0, 2, (batch, k), generator=torch.Generator().manual_seed(data.draw(st.integers(0, 9))))
    columns = data.draw(ascending(k, batch, 8))
    got = remap(mask, columns, columns, batch)
    for b in range(batch):
        assert got[b].tolist() == [0 if c < 0 else int(mask[b, c]) for c in columns[b].tolist()]
    assert remap(mask, None, None, batch) is mask


@quick
@given(st.data())
def test_causal_writes_out_what_transformers_left_out(data):
    batch, length, past = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7)), data.draw(st.integers(0, 5))
    rows = data.draw(ascending(length, batch))
    earlier = data.draw(ascending(past, batch)) if past else torch.empty(batch, 0, dtype=torch.long)
    here = torch.where(rows < 0, rows, rows + past)
    columns = torch.cat([earlier, here], 1)
    got = causal(here, columns, "sdpa")
    assert got.shape == (batch, 1, rows.shape[1], columns.shape[1]) and got.dtype == torch.bool
    for b in range(batch):
        for i, q in enumerate(here[b].tolist()):
            if q >= 0:
                assert got[b, 0, i].tolist() == [0 <= k <= q for k in columns[b].tolist()]
                assert got[b, 0, i].any()  # every token sees itself
    assert torch.equal(causal(here, columns, "flash_attention_2"), (columns >= 0).long())
    with pytest.raises(PatchError, match="sdpa"):
        causal(here, columns, "flex_attention")


def test_a_single_row_takes_the_short_way_to_the_same_answer():
    mask = torch.rand(1, 1, 6, 9) > 0.3
    rows, columns = torch.tensor([[0, 2, 5]]), torch.tensor([[-1, 0, 3, 4, 8]])
    twice = remap(mask.expand(2, -1, -1, -1), rows.expand(2, -1), columns.expand(2, -1), 2)
    assert torch.equal(remap(mask, rows, columns, 1), twice[:1])


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 1, 1, 3, 4)])
def test_masks_of_other_shapes_are_refused(shape):
    with pytest.raises(PatchError, match="dimensions"):
        remap(torch.ones(shape, dtype=torch.bool), None, torch.zeros(2, 1, dtype=torch.long), 2)
