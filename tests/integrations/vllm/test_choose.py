"""Exact counts whatever a method answers, merged rows, and which methods may serve."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integrations.vllm.faulty import Halves, MergesBadly, Raises, Shapeless
from tokenprune import TokenPruneError, VisualTokens, get_method, list_methods
from tokenprune.families.shapes import grid_shape
from tokenprune.integrations.vllm.choose import Chooser, exact
from tokenprune.integrations.vllm.serving import served
from tokenprune.integrations.vllm.settings import Choice

SERVED = (
    """clip_mean cubes divprune evs pool progressive random soft_resample uniform vidcom2 vcast""".split()
)
GRID = (3, 4, 5)


def features(n: int, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.booleans(), st.data())
def test_any_mask_becomes_exact(parts, size, scored, data):
    bits = data.draw(st.lists(st.booleans(), min_size=parts * size, max_size=parts * size))
    quotas = data.draw(st.lists(st.integers(0, size), min_size=parts, max_size=parts))
    mask = torch.tensor(bits)
    scores = features(parts * size, 1)[:, 0] if scored else None
    index = exact(mask, quotas, scores)
    kept = torch.zeros_like(mask).index_fill(0, index, True).view(parts, size)
    assert index.tolist() == sorted(set(index.tolist())) and len(index) == sum(quotas)
    assert kept.sum(1).tolist() == quotas
    for had, now, quota in zip(mask.view(parts, size), kept, quotas):
        # nothing is exchanged: what was chosen goes only where it is too much
        assert bool((had <= now).all() if int(had.sum()) <= quota else (now <= had).all())


def test_what_is_right_stays_as_it_is():
    mask = torch.tensor([0, 1, 1, 0, 0, 1, 0, 1], dtype=torch.bool)
    assert exact(mask, [4]).tolist() == [1, 2, 5, 7]
    assert exact(mask, [2, 2]).tolist() == [1, 2, 5, 7]


def test_scores_decide_what_is_mended():
    scores = torch.tensor([5.0, 1, 4, 2, 3, 0])
    few, many = torch.tensor([0, 1, 0, 0, 0, 0]).bool(), torch.ones(6).bool()
    assert exact(few, [3], scores).tolist() == [0, 1, 2]
    assert exact(many, [2], scores).tolist() == [0, 2]
    assert exact(many, [2], torch.full((6,), float("nan"))).tolist() == [0, 1], (
        "ties and NaN: the lower index"
    )


def test_without_scores_it_is_mended_evenly():
    index = exact(torch.ones(100).bool(), [10])
    gaps = torch.cat([index, torch.tensor([100])]).diff()
    assert gaps.max() <= 20, "no large part of the picture is lost"


@pytest.mark.parametrize("name", SERVED)
def test_a_served_method_chooses_what_it_chooses_elsewhere(name):
    n, kept = 60, 15
    method, x = get_method(name, keep=0.25), features(n)
    shape = grid_shape(*GRID)
    rows, index = Chooser(method)(x, shape, "video", [kept])
    answer = method.select(
        VisualTokens(x[None], GRID, "video", shape.coords, ordinal=torch.zeros(1, dtype=torch.long)), kept
    )
    expected = x if answer.features is None else answer.features[0]
    assert index.tolist() == answer.keep[0].nonzero()[:, 0].tolist()
    torch.testing.assert_close(rows, expected[index], rtol=0, atol=0)


def test_deepstack_levels_go_through_the_same_map():
    x, shape = features(60, 48), grid_shape(*GRID)
    method = get_method("pool", keep=0.25)
    rows, index = Chooser(method)(x, shape, "video", [15], width=16)
    answer = method.select(VisualTokens(x[None, :, :16], GRID, "video", shape.coords), 15)
    levels = [answer.merge(x[None, :, i : i + 16])[0][index] for i in (16, 32)]
    torch.testing.assert_close(rows, torch.cat([answer.features[0][index], *levels], 1))
    whole, index = Chooser(get_method("divprune", keep=0.25))(x, shape, "video", [15], width=16)
    torch.testing.assert_close(whole, x[index], rtol=0, atol=0)


def test_quotas_hold_in_every_frame():
    rows, index = Chooser(get_method("evs"))(features(60), grid_shape(*GRID), "video", [2, 7, 0])
    assert torch.bincount(index // 20, minlength=3).tolist() == [2, 7, 0] and len(rows) == 9


def test_all_tokens_are_kept_without_asking():
    x = features(60)
    rows, index = Chooser(Raises())(x, grid_shape(*GRID), "video", [60])
    assert rows is x and index.tolist() == list(range(60))


@pytest.mark.parametrize("method", [Raises(), Shapeless(), MergesBadly()])
def test_a_method_that_fails_is_replaced_and_said_once(method, caplog):
    chooser, x, shape = Chooser(method), features(60), grid_shape(*GRID)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            rows, index = chooser(x, shape, "image", [15], width=8)
    expected = Chooser(get_method("uniform"))(x, shape, "image", [15])[1]
    assert index.tolist() == expected.tolist() and len(rows) == 15
    assert [r.message.count("uniform") for r in caplog.records] == [1]


def test_a_method_that_miscounts_is_mended_and_said_once(caplog):
    chooser, x, shape = Chooser(Halves()), features(60), grid_shape(*GRID)
    with caplog.at_level(logging.WARNING):
        answers = [chooser(x, shape, "image", [15])[1] for _ in range(3)]
    best = x.norm(dim=1).topk(15).indices.sort().values
    assert all(index.tolist() == best.tolist() for index in answers), "by its own scores"
    assert [r.message for r in caplog.records] == ["Halves kept 7 of 60 tokens, not 15; mended. Said once."]


@pytest.mark.parametrize("name", SERVED)
def test_methods_that_can_serve(name):
    assert served(Choice(name, 0.25)).name == name


@pytest.mark.parametrize("choice", [
    Choice("instance", 0.25, {"seeds": "fps"}),
    Choice("instance", 0.25, {"seeds": "grid", "beta": "adaptive"}),
    Choice("tome", 0.25, {"metric": "features"}),
    Choice("uniform", 0.25, {"over": "frames"}),
    Choice("progressive", 40, {"budget": "adaptive"}),
    Choice("cubes", 0.25, {"fill": "vidcom2"}),
])  # fmt: skip
def test_hyper_parameters_decide_too(choice):
    assert served(choice).hyper().items() >= choice.hyper.items()


@pytest.mark.parametrize(("choice", "why"), [
    (Choice("fastv"), "inside the language model"),
    (Choice("fixation"), "inside the language model"),
    (Choice("dycoke", 0.25, {"stages": "both"}), "inside the language model"),
    (Choice("cdpruner"), "depends on the question"),
    (Choice("flashvlm"), "depends on the question"),
    (Choice("dtd"), "the content decides"),
    (Choice("progressive", 0.25, {"budget": "threshold"}), "the content decides"),
    (Choice("visionzip"), "needs saliency, vision_keys"),
    (Choice("instance"), "needs saliency"),
    (Choice("evs", 0.1, {"frames": 8}), "first frame"),
    (Choice("clip_mean", 0.25, {"tokens_per_second": 8, "fps": 1, "tokens_per_frame": 49}), "it keeps"),
    (Choice("divprune", 0.25, {"sed": 1}), "no hyper-parameter"),
    (Choice("divprun"), "did you mean divprune"),
])  # fmt: skip
def test_methods_that_cannot_are_refused_with_the_reason(choice, why):
    with pytest.raises(TokenPruneError, match=why):
        served(choice)


def test_every_registered_method_is_served_or_refused_with_a_reason():
    for name in list_methods():
        try:
            assert served(Choice(name)).name == name
        except TokenPruneError as error:
            assert len(str(error)) > 20
