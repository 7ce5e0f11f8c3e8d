"""Instance tokens: the numbers of the specification, and one image at a time in plain Python."""

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

from ..kernels.test_clusters import peaks_reference
from .greedy_reference import distances, farthest
from .make import LAYOUTS, image, make_tokens

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SEEDS = ("attention", "fps", "attention_fps", "density", "grid")
NESTED = SEEDS[:-1]

T = [
    (1, 0, 0),
    (0.9, 0.1, 0),
    (0.8, 0.3, 0.1),
    (0, 1, 0),
    (0.1, 0.9, 0.2),
    (0, 0, 1),
    (0.1, 0.1, 1),
    (0.5, 0.5, 0.5),
]
A = (0.05, 0.30, 0.02, 0.20, 0.05, 0.10, 0.08, 0.20)


def specified(dtype: torch.dtype = torch.float32) -> VisualTokens:
    return VisualTokens(torch.tensor([T], dtype=dtype), None, saliency=torch.tensor([A]))


@pytest.mark.parametrize(("hyper", "expected"), [
    ({}, {1: (0.9, 0.125, 0.025), 7: (0.275, 0.275, 0.75), 3: (0.05, 0.95, 0.1)}),
    ({"beta": "adaptive"}, {1: (0.9, 0.12, 0.02), 7: (0.32, 0.32, 0.70), 3: (0.04, 0.96, 0.08)}),
    ({"beta": 0.6}, {1: (0.9, 0.12, 0.02), 7: (0.32, 0.32, 0.70), 3: (0.04, 0.96, 0.08)}),
    ({"beta": 1.0}, {1: (0.9, 0.1, 0), 7: (0.5, 0.5, 0.5), 3: (0, 1, 0)}),
    ({"normalize": True},
     {1: (0.9892, 0.1438, 0.0294), 7: (0.3473, 0.3473, 0.8711), 3: (0.0543, 0.9926, 0.1086)}),
])  # fmt: skip
def test_numbers_of_the_specification(hyper, expected):
    selection = get_method("instance", seeds="attention", **hyper).select(specified(), 3)
    assert selection.keep[0].nonzero().flatten().tolist() == [1, 3, 7]
    assert selection.owner.tolist() == [[1, 1, 1, 3, 3, 7, 7, 7]]
    for slot, vector in expected.items():
        torch.testing.assert_close(
            selection.features[0, slot], torch.tensor(vector).float(), rtol=0, atol=6e-5
        )


def test_the_alias_is_the_same_method():
    assert get_method("instance_tokens", seeds="grid") == get_method("instance", seeds="grid")


def seeds_of(tokens: VisualTokens, i: int, seeds: str, keep: int) -> tuple[list[int], float]:
    """Seeds of image i, and how close the closest call was."""
    x, a = tokens.features[i], tokens.saliency[i].double().tolist()
    n, late = len(x), tokens.coords[:, 3] < 0
    if seeds == "attention":
        order = sorted(range(n), key=lambda j: (bool(late[j]), -a[j], j))
        return order[:keep], min(abs(p - q) for p in a for q in a if p is not q) if n > 1 else 1.0
    if seeds == "density":
        unit = x / x.norm(dim=1, keepdim=True) * math.sqrt(x.shape[1])
        order, _, close = peaks_reference(unit, n)
        return sorted(order, key=lambda j: bool(late[j]))[:keep], close
    weight = tokens.saliency[i] if seeds == "attention_fps" else None
    order, _, close = farthest(x, keep, weight, late)
    return order, close


def gathered(
    tokens: VisualTokens, i: int, slots: list[int], beta: float
) -> tuple[dict, dict[int, int], float]:
    """{slot: vector}, {token: slot} of image i, and how close the closest call was."""
    x, d = tokens.features[i].double(), distances(tokens.features[i])
    newline = (tokens.coords[:, 3] < 0).tolist()
    owner, close = {slot: slot for slot in slots}, math.inf
    patches = [slot for slot in slots if not newline[slot]]
    for j in range(len(x)):
        if j not in owner and not newline[j]:
            ranked = sorted(patches, key=lambda slot: d[j][slot])
            owner[j] = ranked[0]
            if len(ranked) > 1:
                close = min(close, d[j][ranked[1]] - d[j][ranked[0]])
    out = {}
    for slot in slots:
        members = [j for j, o in owner.items() if o == slot and j != slot]
        out[slot] = x[slot]
        if members:
            out[slot] = beta * x[slot] + (1 - beta) * sum(x[j] for j in members) / len(members)
    return out, owner, close


@pytest.mark.parametrize("seeds", NESTED)
@quick
@given(
    st.integers(0, 10**6), st.data(), st.sampled_from(["wide", "newlines"]), st.sampled_from([0.0, 0.5, 0.8])
)
def test_agrees_with_a_float64_loop(seeds, seed, data, layout, beta):
    tokens = make_tokens(LAYOUTS[layout], images=2, seed=seed)
    n = tokens.shape[1]
    keep = data.draw(st.integers(1, n))
    selection = get_method("instance", seeds=seeds, beta=beta).select(tokens, keep)
    for i in range(2):
        slots, near = seeds_of(tokens, i, seeds, keep)
        assume(near > 1e-5)
        assert selection.keep[i].nonzero().flatten().tolist() == sorted(slots)
        expected, owner, close = gathered(tokens, i, slots, beta)
        assume(close > 1e-5)
        assert selection.owner[i].tolist() == [owner.get(j, -1) for j in range(n)]
        for slot, vector in expected.items():
            torch.testing.assert_close(selection.features[i, slot].double(), vector, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("layout", ["square", "ragged", "newlines", "video-newline"])
def test_seeds_are_nested_and_separators_come_last(seeds, layout):
    tokens = make_tokens(LAYOUTS[layout], images=2)
    newline, n = tokens.coords[:, 3] < 0, tokens.shape[1]
    patches = int((~newline).sum())
    masks = [get_method("instance", seeds=seeds).select(tokens, k).keep for k in range(1, n + 1)]
    if seeds in NESTED:
        assert all(not (small & ~large).any() for small, large in itertools.pairwise(masks))
        assert all(not mask[:, newline].any() for mask in masks[:patches])
    assert masks[-1].all()


def test_fps_seeds_are_those_of_divprune_and_grid_seeds_those_of_pool():
    tokens = make_tokens(LAYOUTS["square"], images=2)
    for keep in (1, 5, 20):
        for seeds, other in (("fps", "divprune"), ("grid", "pool")):
            mine = get_method("instance", seeds=seeds).select(tokens, keep).keep
            assert torch.equal(mine, get_method(other).select(tokens, keep).keep)


def test_other_levels_get_the_same_map():
    """DeepStack levels have a width of their own: same clusters, same weights."""
    tokens = make_tokens(LAYOUTS["square"])
    selection = get_method("instance", beta=0.7).select(tokens, 8)
    level = torch.randn(1, 36, 5, generator=torch.Generator().manual_seed(3))
    got = selection.merge(level)
    for slot in selection.keep[0].nonzero().flatten().tolist():
        members = [j for j in range(36) if selection.owner[0, j] == slot and j != slot]
        expected = level[0, slot]
        if members:
            expected = 0.7 * level[0, slot] + 0.3 * level[0, members].mean(0)
        torch.testing.assert_close(got[0, slot], expected)


def test_lengths_stay_those_of_projected_tokens_unless_they_are_normalised():
    tokens = make_tokens(image(12, 12), images=2, dim=64)
    tokens.features = tokens.features * 3 + 4  # a common direction, as projected tokens have
    plain = get_method("instance").select(tokens, 16)
    before, after = tokens.features.norm(dim=2).mean(), plain.features[plain.keep].norm(dim=1).mean()
    assert 0.8 < after / before < 1.05
    scaled = get_method("instance", normalize=True).select(tokens, 16)
    torch.testing.assert_close(scaled.features[scaled.keep].norm(dim=1), torch.ones(32))
    assert torch.equal(scaled.owner, plain.owner)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_half_precision_run_in_float32(dtype):
    """4,000 members: a sum in half precision would stop growing."""
    x = torch.ones(1, 4001, 4, dtype=dtype)
    tokens = VisualTokens(x, None, saliency=torch.ones(1, 4001))
    selection = get_method("instance").select(tokens, 1)
    assert torch.equal(selection.features[0, 0], torch.ones(4, dtype=dtype))


def test_the_metric_assigns_and_the_features_are_averaged():
    tokens = make_tokens(LAYOUTS["square"])
    method = get_method("instance", seeds="fps", metric="vision_features")
    assert method.needs == {"vision_features"}
    selection = method.select(tokens, 6)
    same = VisualTokens(tokens.vision_features, tokens.grid, coords=tokens.coords)
    other = get_method("instance", seeds="fps").select(same, 6)
    assert torch.equal(selection.owner, other.owner)
    torch.testing.assert_close(selection.features[0], other.merge(tokens.features)[0])


def test_needs_follow_the_seeds():
    for seeds in SEEDS:
        needs = {"saliency"} if seeds.startswith("attention") else set()
        assert get_method("instance", seeds=seeds).needs == needs
    bare = VisualTokens(torch.randn(1, 9, 4), None)
    for hyper, match in (
        ({}, "fps"), ({"seeds": "grid"}, "coords"), ({"seeds": "fps", "metric": "vision_keys"}, "vision_keys")
    ):  # fmt: skip
        with pytest.raises(TokenPruneError, match=match):
            get_method("instance", **hyper).select(bare, 3)


def test_what_is_refused():
    for hyper in (
        {"beta": 1.1},
        {"beta": True},
        {"beta": None},
        {"seeds": None},
        {"normalize": 1},
        {"metric": "x"},
    ):
        with pytest.raises(TokenPruneError, match=next(iter(hyper))):
            get_method("instance", **hyper)
