"""DART against one image at a time in float64 and plain Python."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tokenprune.errors import TokenPruneError
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, image, make_tokens

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def by_norm(keys: torch.Tensor, valid: list[int]) -> tuple[list[int], float]:
    """(Hkv, n, d) -> places among `valid` by falling L1 norm, and the smallest gap between two norms."""
    norm = {i: sum(abs(v) for v in keys[:, i].double().flatten().tolist()) for i in valid}
    order = sorted(valid, key=lambda i: (-norm[i], i))
    return order, min((norm[a] - norm[b] for a, b in itertools.pairwise(order)), default=math.inf)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double(), b.double()
    return float(a @ b / (a.norm() * b.norm()))


def reference(tokens: VisualTokens, i: int, keep: int, visual=4, words=4) -> tuple[list[int], float]:
    """Kept indices of image i, and how close the closest call was."""
    n = tokens.shape[1]
    order, close = by_norm(tokens.keys[i], list(range(n)))
    kept = order[: min(visual, keep)]
    pivots = [tokens.features[i, p] for p in kept]
    valid = []
    if tokens.text_keys is not None:
        valid = [t for t in range(tokens.text.shape[1]) if tokens.text_mask[i, t]]
    if valid:
        spoken, gap = by_norm(tokens.text_keys[i], valid)
        close = min(close, gap)
        pivots += [tokens.text[i, spoken[p % len(spoken)]] for p in range(words)]
    else:
        pivots += [pivots[p % len(kept)] for p in range(words)]
    share, rest = divmod(keep - len(kept), len(pivots))
    for p, pivot in enumerate(pivots):
        alike = {j: cosine(tokens.features[i, j], pivot) for j in range(n) if j not in kept}
        ranked = sorted(alike, key=lambda j: (alike[j], j))
        quota = share + (p < rest)
        if 0 < quota < len(ranked):
            close = min(close, alike[ranked[quota]] - alike[ranked[quota - 1]])
        kept = kept + ranked[:quota]
    return sorted(kept), close


@quick
@given(st.integers(0, 10**6), st.data(), st.integers(1, 6), st.integers(0, 7), st.booleans())
def test_agrees_with_a_float64_loop(seed, data, visual, words, silent):
    tokens = make_tokens(LAYOUTS["wide"], images=2, seed=seed)
    if silent:
        tokens.text_mask[1] = False
    keep = data.draw(st.integers(1, 33))
    mask = get_method("dart", visual_pivots=visual, text_pivots=words).select(tokens, keep).keep
    for i in range(2):
        expected, close = reference(tokens, i, keep, visual, words)
        assume(close > 1e-5)
        assert mask[i].nonzero().flatten().tolist() == expected


def test_without_any_text_the_visual_pivots_take_all():
    tokens = make_tokens(LAYOUTS["square"], images=2)
    tokens.text_mask[:] = False
    silent = get_method("dart").select(tokens, 15).keep
    tokens.text = tokens.text_keys = tokens.text_mask = None
    assert torch.equal(get_method("dart").select(tokens, 15).keep, silent)


def test_padding_of_the_question_does_not_count():
    tokens = make_tokens(LAYOUTS["square"], images=2)
    plain = get_method("dart", text_pivots=6).select(tokens, 20).keep
    pad = ~tokens.text_mask
    tokens.text = torch.cat([tokens.text.masked_fill(pad.unsqueeze(2), 9.0), torch.full((2, 5, 12), 7.0)], 1)
    tokens.text_keys = torch.cat(
        [tokens.text_keys.masked_fill(pad[:, None, :, None], 1e6), torch.full((2, 2, 5, 5), 1e6)], 2
    )
    tokens.text_mask = torch.cat([tokens.text_mask, torch.zeros(2, 5, dtype=torch.bool)], 1)
    assert torch.equal(get_method("dart", text_pivots=6).select(tokens, 20).keep, plain)


def test_the_question_decides_only_through_its_pivots():
    tokens = make_tokens(image(10, 10), dim=32)
    aware, blind = get_method("dart"), get_method("dart", text_pivots=0)
    before = aware.select(tokens, 20).keep, blind.select(tokens, 20).keep
    tokens.text = tokens.text.flip(2)
    assert not torch.equal(aware.select(tokens, 20).keep, before[0])
    assert torch.equal(blind.select(tokens, 20).keep, before[1])
    assert aware.needs == {"keys", "text", "text_keys"} and blind.needs == {"keys"}


def test_duplicates_of_a_pivot_go_last():
    """Half of the tokens are copies of the pivot with other sizes: with room for the others, none of them stays."""
    g = torch.Generator().manual_seed(0)
    features = torch.randn(1, 40, 16, generator=g)
    features[0, 20:] = features[0, 20] * torch.linspace(0.5, 3, 20)[:, None]
    keys = torch.rand(1, 2, 40, 4, generator=g)
    keys[:, :, 25] += 10
    tokens = VisualTokens(features, None, keys=keys)
    method = get_method("dart", visual_pivots=1, text_pivots=0)
    assert method.select(tokens, 21).keep[0].nonzero().flatten().tolist() == [*range(20), 25]


def test_what_is_refused():
    for hyper in ({"visual_pivots": 0}, {"text_pivots": -1}, {"text_pivots": 1.0}, {"visual_pivots": True}):
        with pytest.raises(TokenPruneError, match=next(iter(hyper))):
            get_method("dart", **hyper)
