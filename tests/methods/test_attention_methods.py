"""FastV and PyramidDrop: the ranking of one attention row."""

from __future__ import annotations

import pytest
import torch

from tokenprune.errors import TokenPruneError
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, make_tokens, take

BOTH = ["fastv", "pyramiddrop"]


@pytest.mark.parametrize("name", BOTH)
def test_keeps_the_highest_of_a_plain_sort(name):
    tokens = make_tokens(LAYOUTS["ragged"], images=3)
    for keep in (1, 7, 40):
        selection = get_method(name).select(tokens, keep)
        assert torch.equal(selection.scores, tokens.attention) and selection.features is None
        for row, attention in zip(selection.keep, tokens.attention.double().tolist()):
            ranked = sorted(range(len(attention)), key=lambda i: (-attention[i], i))
            assert row.nonzero().flatten().tolist() == sorted(ranked[:keep])


@pytest.mark.parametrize("name", BOTH)
def test_equal_attention_goes_to_the_lower_index(name):
    tokens = VisualTokens(torch.zeros(2, 6, 3), None, attention=torch.tensor([[1, 2, 1, 2, 1, 1.0]] * 2))
    assert get_method(name).select(tokens, 4).keep.nonzero()[:, 1].tolist() == [0, 1, 2, 3] * 2


def test_a_pyramid_shrinks_in_stages():
    """Every cut ranks what the cut before has left, with attention of its own."""
    method = get_method("pyramiddrop")
    tokens, alive = make_tokens(LAYOUTS["square"], images=2), None
    for layer, keep in method.schedule(36, 16).items():
        n = tokens.shape[1] if alive is None else alive.shape[1]
        attention = torch.rand(2, n, generator=torch.Generator().manual_seed(layer))
        here = VisualTokens(torch.zeros(2, n, 3), None, attention=attention, layer=layer, num_layers=16)
        mask = method.select(here, keep).keep
        alive = mask.nonzero()[:, 1].view(2, keep)
        assert (attention.gather(1, alive).amin(1) >= attention.masked_fill(mask, -1).amax(1)).all()
    assert alive.shape[1] == method.num_kept(36, 16)


@pytest.mark.parametrize(
    ("name", "field"), [("fastv", "attention"), ("pyramiddrop", "attention"), ("dart", "keys")]
)
def test_what_is_missing_is_named(name, field):
    tokens = take(make_tokens(LAYOUTS["square"], images=2), [1])
    setattr(tokens, field, None)
    with pytest.raises(TokenPruneError, match=field):
        get_method(name).select(tokens, 3)


def test_the_question_decides():
    assert all(get_method(name).query_aware for name in (*BOTH, "sparsevlm", "dart"))
    assert not get_method("entropyprune").query_aware
