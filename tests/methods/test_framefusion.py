"""FrameFusion layer by layer against plain loops and the published equation for its one cut."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.tiny.models import FAMILIES
from tokenprune import get_method, patch_model
from tokenprune.errors import TokenPruneError
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, clip, image, make_tokens
from .toy import toy

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def cut_share(c: float, depth: int, sparsities: list[float]) -> float:
    """The published r."""
    paid = sum(math.prod(1 - s for s in sparsities[: i + 1]) for i in range(len(sparsities)))
    return 1 - (depth * c - paid) / ((depth - len(sparsities)) * math.prod(1 - s for s in sparsities))


def chains(x: torch.Tensor, coords: list[list[int]], tau: float) -> tuple[list[int], float]:
    """(N, D) -> the first token of each one's run, walking every place through time; closest call."""
    head, close, last = list(range(len(coords))), 1.0, {}
    for i in sorted(range(len(coords)), key=lambda i: coords[i][1]):
        part, _, row, column = coords[i]
        if row < 0:
            continue
        j = last.get((part, row, column))
        last[part, row, column] = i
        if j is not None:
            alike = float(torch.cosine_similarity(x[i].double(), x[j].double(), dim=0))
            close = min(close, abs(alike - tau))
            head[i] = head[j] if alike >= tau else i
    return head, close


@pytest.mark.parametrize(("sparsities", "r"), [([], 0.7), ([0.2], 0.6481), ([0.2, 0.3, 0.05], 0.5107)])
def test_the_equation_is_the_published_one(sparsities, r):
    assert cut_share(0.3, 28, sparsities) == pytest.approx(r, abs=5e-5)


def test_chains_of_the_toy_clip():
    selection = get_method("framefusion").parts()[0].select(toy(), 24)
    assert int(selection.keep.sum()) == 12
    head, _ = chains(toy().features[0], toy().coords.tolist(), 0.6)
    assert selection.owner[0].tolist() == head


@quick
@given(
    st.sampled_from(sorted(set(LAYOUTS) - {"medium"})),
    st.integers(0, 10**6),
    st.sampled_from([-0.2, 0.1, 0.6]),
)
def test_merging_agrees_with_a_float64_loop(layout, seed, tau):
    tokens = make_tokens(LAYOUTS[layout], images=2, seed=seed)
    left = (torch.rand(tokens.shape[1], generator=torch.Generator().manual_seed(seed)) < 0.8).nonzero()[:, 0]
    if len(left):  # as after an earlier cut: chains have gaps
        tokens.features, tokens.coords = tokens.features[:, left], tokens.coords[left]
        tokens.received, tokens.grid = tokens.received[:, left], None
    selection = get_method("framefusion", tau=tau, keep=1.0).select(tokens, 9)
    for i in range(2):
        head, close = chains(tokens.features[i], tokens.coords.tolist(), tau)
        assume(close > 1e-5)
        assert selection.owner[i].tolist() == head
        kept = selection.keep[i].nonzero().flatten().tolist()
        assert kept == sorted(set(head))
        for j in kept:
            mean = tokens.features[i, [k for k, h in enumerate(head) if h == j]].double().mean(0)
            torch.testing.assert_close(selection.features[i, j].double(), mean, rtol=1e-4, atol=1e-5)


def scripted(shares: list[float], places: int = 500) -> list[torch.Tensor]:
    """Features of two frames at each layer, of which a share of the tokens alive will be merged at that layer."""
    layers, single = [], []  # places that have lost their second token
    for share in shares:
        alive = 2 * places - len(single)
        goes = round(share * alive)
        x = torch.zeros(2, places, 4)
        x[0, :, 0], x[1, :, 1] = 1.0, 1.0
        fresh = [p for p in range(places) if p not in single][:goes]
        x[1, fresh] = x[0, fresh]
        single += fresh
        layers.append(x.flatten(0, 1))
    return layers


def walk(method, layers: list[torch.Tensor], depth: int) -> list[int]:
    """Tokens alive from each layer on as the hooks walk through one clip, and whether a cut was by importance."""
    layout = clip(2, 1, len(layers[0]) // 2)
    memo, alive, counts, important = {}, torch.arange(len(layers[0])), [], False
    received = torch.rand(len(alive), generator=torch.Generator().manual_seed(0))
    first, later = method.parts()
    for layer in range(later.cut_layers(depth)[-1] + 1):
        x = layers[min(layer, len(layers) - 1)][alive][None]
        tokens = VisualTokens(
            x, None, "video", layout.coords[alive], layer=layer, num_layers=depth, memo=memo
        )
        if layer:
            tokens.received = received[alive][None]
        keep = (later if layer else first).select(tokens, len(alive)).keep[0]
        before, alive = alive, alive[keep]
        counts.append(len(alive))
        if layer and len(alive) < len(before):
            best = received[before].argsort(descending=True, stable=True)[: len(alive)].sort().values
            important = torch.equal(before[best], alive)
    return [*counts, important]


@pytest.mark.parametrize(
    ("shares", "stop", "c"),
    [([0.05], 0.1, 0.3), ([0.2], 0.3, 0.3), ([0.2, 0.3, 0.05], 0.1, 0.3), ([0.2, 0.15, 0.02], 0.1, 0.5)],
)
def test_the_cut_is_the_published_one_and_the_average_is_met(shares, stop, c):
    method = get_method("framefusion", keep=c, stop=stop)
    *counts, by_importance = walk(method, scripted(shares), 28)
    alive = [1000]
    for share in shares:
        alive.append(alive[-1] - round(share * alive[-1]))
    n, exact = len(shares), [1 - b / a for a, b in itertools.pairwise(alive)]
    assert counts[:n] == alive[1:]
    assert counts[n] == pytest.approx((1 - cut_share(c, 28, exact)) * alive[-1], abs=0.51)
    assert set(counts[n:]) == {counts[n]} and by_importance
    average = (sum(alive[1:]) + (28 - n) * counts[n]) / 28
    assert average == pytest.approx(1000 * c, abs=0.5)


def test_the_cap_and_an_empty_purse_end_the_merging():
    many = scripted([0.12] * 4)
    *counts, _ = walk(get_method("framefusion", merges=2, keep=0.4), many, 28)
    assert len(counts) == 3 and counts[2] == round((0.4 * 1000 * 28 - counts[0] - counts[1]) / 26)
    *counts, _ = walk(get_method("framefusion", keep=63), many, 28)
    assert counts == [880, *[round((63 * 28 - 880) / 27)] * 4], "a second layer like this would leave nothing"
    *counts, _ = walk(get_method("framefusion", keep=0.01), many, 28)
    assert counts[1:] == [1] * 4, "below what layer 0 costs nothing can be met: one stays"


def test_a_still_clip_ends_below_its_budget():
    """The trap: what merging saves is not given back."""
    still = torch.ones(1000, 4)
    *counts, by_importance = walk(get_method("framefusion", keep=0.6), [still], 28)
    assert set(counts) == {500} and not by_importance


def test_a_picture_is_cut_once():
    tokens = make_tokens(image(5, 8), images=2)
    tokens.layer, tokens.num_layers = 0, 28
    first, later = get_method("framefusion").parts()
    assert first.select(tokens, 40).keep.all() and first.stage == "input" and first.needs == set()
    tokens.layer = 1
    selection = later.select(tokens, 40)
    assert selection.keep.sum(1).tolist() == [round((0.3 * 40 * 28 - 40) / 27)] * 2
    least = selection.scores.masked_fill(~selection.keep, 9).amin(1)
    assert (selection.scores.masked_fill(selection.keep, -9).amax(1) < least).all()


@pytest.mark.parametrize(
    ("name", "kind"), [("llava_onevision", "video_batch"), ("qwen2_5_vl", "mixed_batch")]
)
@pytest.mark.parametrize("tau", [0.6, -1.0])
def test_on_a_model_every_row_is_its_own(name, kind, tau, tmp_path):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    with torch.no_grad(), patch_model(model, "framefusion", keep=0.5, tau=tau) as handle:
        model(**inputs)
        together = handle.report.images
        assert [m.stage for m in handle.methods] == ["input", "layer"]
        alone = []
        for row in family.rows(kind):
            model(**row)
            alone += handle.report.images
        path = handle.recipe().save(tmp_path / "recipe.yaml")
    assert [i.kept for i in together] == [i.kept for i in alone]
    assert [i.per_layer for i in together] == [i.per_layer for i in alone]
    for i in together:
        frames = i.grid[0] if i.kind == "video" else 1
        assert all(a >= b for a, b in itertools.pairwise(i.per_layer)), "nothing comes back"
        if frames > 1 and tau == -1.0:
            separators = int((i.coords[:, 2] < 0).sum())
            assert i.per_layer[0] == (i.before - separators) // frames + separators, (
                "all of a place is one run"
            )
        elif frames == 1:
            assert i.per_layer[0] == i.before and sum(i.per_layer) / 4 == pytest.approx(i.before / 2, abs=0.5)
    with torch.no_grad(), patch_model(model, recipe=path) as again:
        model(**inputs)
        assert [i.kept for i in again.report.images] == [i.kept for i in together]


@pytest.mark.parametrize("hyper", [{"tau": 2}, {"stop": -0.1}, {"merges": 0}, {"merges": True}])
def test_what_is_refused(hyper):
    with pytest.raises(TokenPruneError, match=next(iter(hyper))):
        get_method("framefusion", **hyper)
    tokens = make_tokens(LAYOUTS["video"])
    tokens.received = None
    with pytest.raises(TokenPruneError, match="received"):
        get_method("framefusion").select(tokens, 5)
