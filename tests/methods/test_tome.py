"""One-shot ToMe: what its groups are is tested with the kernel; here what becomes of features, sizes and places."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenprune.errors import TokenPruneError
from tokenprune.kernels.bipartite import merge_rounds
from tokenprune.methods import get_method

from ..kernels.test_merging import merged
from .make import LAYOUTS, image, make_tokens

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@quick
@given(
    st.integers(0, 10**6),
    st.data(),
    st.sampled_from(["square", "crops", "video"]),
    st.sampled_from([0.2, 0.5]),
)
def test_every_token_is_in_one_mean(seed, data, layout, share):
    tokens = make_tokens(LAYOUTS[layout], images=2, seed=seed)
    s, n, _ = tokens.shape
    keep = data.draw(st.integers(1, n))
    selection = get_method("tome", share=share).select(tokens, keep)
    for i in range(s):
        slots = selection.keep[i].nonzero().flatten().tolist()
        sizes = [int((selection.owner[i] == slot).sum()) for slot in slots]
        assert sum(sizes) == n and min(sizes) >= 1
        mass = torch.zeros(tokens.shape[2], dtype=torch.double)
        for slot, size in zip(slots, sizes):
            members = selection.owner[i] == slot
            mean = tokens.features[i, members].double().mean(0)
            torch.testing.assert_close(selection.features[i, slot].double(), mean, rtol=1e-4, atol=1e-5)
            mass += size * selection.features[i, slot].double()
        torch.testing.assert_close(mass, tokens.features[i].double().sum(0), rtol=1e-3, atol=1e-3)


def test_merging_round_by_round_with_sizes_gives_the_same_means():
    """The chain of size-weighted means that the paper writes, done step by step on features."""
    tokens = make_tokens(LAYOUTS["square"])
    keys, n = tokens.vision_keys[0], 36
    value = {i: tokens.features[0, i].double() for i in range(n)}
    size = dict.fromkeys(range(n), 1)
    keep, before = n, {i: [i] for i in range(n)}
    for r in merge_rounds(n, 5):
        keep -= r
        now, _ = merged(keys, keep)
        for slot, members in now.items():
            for old in [o for o in before if o != slot and o in members]:
                total = size[slot] + size[old]
                value[slot] = (size[slot] * value[slot] + size[old] * value[old]) / total
                size[slot] = total
        before = now
    selection = get_method("tome").select(tokens, 5)
    assert selection.keep[0].nonzero().flatten().tolist() == sorted(before)
    for slot in before:
        torch.testing.assert_close(selection.features[0, slot].double(), value[slot], rtol=1e-4, atol=1e-5)
        assert size[slot] == int((selection.owner[0] == slot).sum())


def test_the_metric_decides_who_merges():
    tokens = make_tokens(image(6, 6))
    for metric in ("features", "vision_features", "vision_keys"):
        method = get_method("tome", metric=metric)
        assert method.needs == (set() if metric == "features" else {metric})
        groups, _ = merged(getattr(tokens, metric)[0], 9)
        selection = method.select(tokens, 9)
        assert selection.keep[0].nonzero().flatten().tolist() == sorted(groups)
    tokens.vision_keys = None
    with pytest.raises(TokenPruneError, match="metric='features'"):
        get_method("tome").select(tokens, 9)


def test_separators_are_never_averaged_with_patches():
    tokens = make_tokens(LAYOUTS["newlines"], images=2)
    newline = tokens.coords[:, 3] < 0
    for keep in range(1, 25):
        selection = get_method("tome").select(tokens, keep)
        for i in range(2):
            for slot in selection.keep[i].nonzero().flatten().tolist():
                members = [j for j in range(24) if selection.owner[i, j] == slot]
                counted = [j for j in members if not newline[j]] or members
                mean = tokens.features[i, counted].mean(0)
                torch.testing.assert_close(selection.features[i, slot], mean)
            assert (selection.owner[i, ~newline] >= 0).all(), "every patch goes somewhere"
    few = get_method("tome").select(tokens, 20)
    both = [(int(o), bool(b)) for row in few.owner for o, b in zip(row, newline) if o >= 0]
    assert len({o for o, b in both if b} & {o for o, b in both if not b}) == 0, (
        "with room for both, none is mixed"
    )


def test_what_is_refused():
    for hyper in ({"share": 0}, {"share": 0.6}, {"share": True}, {"metric": "keys"}, {"metric": None}):
        with pytest.raises(TokenPruneError, match=next(iter(hyper))):
            get_method("tome", **hyper)
