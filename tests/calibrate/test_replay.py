"""Replayed decode steps against `generate` on patched and unpatched models, row by row, in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tiny.models import FAMILIES
from tests.tiny.reference import decoder_layers
from tokenprune import patch_model
from tokenprune.calibrate.greedy import greedy_removal
from tokenprune.calibrate.replay import Replay, record
from tokenprune.errors import InputError, PatchError
from tokenprune.methods.fixation import Fixation

LENGTHS = (6, 4, 2)
NAMES = ("llava", "qwen2_5_vl")
OPTIONS = {"keep": 0.2, "k_min": 1}


def answers_of(rows):
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(20, 200, (LENGTHS[i],), generator=generator).tolist() for i in range(rows)]


def alone(model, inputs, answer):
    """(T, vocabulary) log probabilities in float64 of the tokens behind the first, one row, by plain `generate`."""
    prompt = inputs["input_ids"].shape[1]

    def forced(row, ids):
        return [answer[len(ids) - prompt]]

    out = model.generate(
        **inputs, max_new_tokens=len(answer), do_sample=False, output_logits=True, return_dict_in_generate=True,
        prefix_allowed_tokens_fn=forced,
    )  # fmt: skip
    assert out.sequences[0, prompt:].tolist() == answer
    x = torch.stack(out.logits[1:])[:, 0].double().numpy()
    return x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)


def by_hand(family, batches, focal):
    """(mean KL, mean loss) over the tokens of all rows of all batches, each row alone and without padding."""
    kl, loss, model = [], [], family.build()
    for kind, answers in batches:
        for row, answer in zip(family.rows(kind), answers):
            dense = alone(model, row, answer)
            with patch_model(model, "fixation", focal=focal, **OPTIONS):
                sparse = alone(model, row, answer)
            kl += (np.exp(dense) * (dense - sparse)).sum(-1).tolist()
            loss += [-line[token] for line, token in zip(sparse, answer[1:])]
    return float(np.mean(kl)), float(np.mean(loss))


def replay_of(family, model, batches):
    recordings = [record(model, family.inputs(kind), answers) for kind, answers in batches]
    layers = len(decoder_layers(model))
    return Replay(model, recordings, Fixation(focal=layers, **OPTIONS))


@pytest.fixture(params=NAMES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def batches(family):
    """Two rows of unequal length and padding, and one row alone: positions of one batch must not serve another."""
    return [("batch", answers_of(2)), ("single", answers_of(3)[1:2])]


def test_costs_are_those_of_plain_generation(family, batches):
    model = family.build()
    with replay_of(family, model, batches) as replay:
        for focal in ((0, 2), (3,)):
            kl, loss = by_hand(family, batches, focal)
            assert kl > 1e-3
            assert replay.cost(focal) == pytest.approx(kl, rel=1e-3, abs=1e-5)
            assert replay.cost(focal, "loss") == pytest.approx(loss, rel=1e-4)
        assert replay.quick(focal) == pytest.approx(
            by_hand(family, batches[:1], focal)[0], rel=1e-3, abs=1e-5
        )


def test_with_all_layers_focal_nothing_is_lost(family, batches):
    model = family.build()
    with replay_of(family, model, batches) as replay:
        assert abs(replay.cost((0, 1, 2, 3))) < 1e-6
        for focal in ((1,), (0, 3)):  # whatever ran before
            assert replay.cost(focal) > 1e-3
        replay._known.clear()
        assert abs(replay.cost((0, 1, 2, 3))) < 1e-6


def test_a_search_on_a_model_finds_nested_sets_and_their_costs(family, batches):
    model = family.build()
    with replay_of(family, model, batches) as replay:
        found = greedy_removal(4, replay.cost, quick=lambda f, bound: replay.quick(f, bound=bound), rerank=2)
        bounded = greedy_removal(4, replay.cost, quick=lambda f, bound: replay.quick(f), rerank=2)
    assert found.sets == bounded.sets and [len(found.sets[m]) for m in (4, 3, 2, 1)] == [4, 3, 2, 1]
    assert all(set(found.sets[m]) < set(found.sets[m + 1]) for m in (1, 2, 3))
    assert found.costs[2] == pytest.approx(by_hand(family, batches, found.sets[2])[0], rel=1e-3, abs=1e-5)


def test_what_is_above_the_bound_stops_early_and_is_not_remembered(family, batches):
    model = family.build()
    with replay_of(family, model, batches) as replay:
        full = replay.quick((1,))
        steps = replay.forwards
        replay._known.clear()
        assert replay.quick((1,), bound=full / 100) == float("inf")
        assert replay.forwards - steps < len(replay.recordings[0].steps)
        assert replay.quick((1,), bound=full * 2) == full


def test_answers_end_where_they_end(family):
    """A row counts up to its own last token; what is fed behind it does not matter."""
    model = family.build()
    answers = answers_of(2)
    long, short = (record(model, family.inputs("batch"), a) for a in (answers, [answers[0], answers[1][:2]]))
    assert (long.tokens, short.tokens) == (5 + 3, 5 + 1)
    assert short.valid.T.tolist() == [[True] * 5, [True] + [False] * 4]
    assert long.targets.T[0].tolist() == answers[0][1:]
    assert torch.equal(long.logprobs[:, 0], short.logprobs[:, 0])


def test_the_model_comes_back_as_it_was(family, batches):
    model, inputs = family.build(), family.inputs("batch")
    before = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    with replay_of(family, model, batches) as replay:
        replay.cost((1,))
        with pytest.raises(InputError, match="'kl' or 'loss'"):
            replay.cost((1,), "accuracy")
    assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False), before)
    assert not model._forward_pre_hooks
    with patch_model(model, "uniform", keep=0.5), pytest.raises(PatchError), replay:
        pass


def test_what_cannot_be_replayed_is_refused():
    family = FAMILIES["llava"]
    model = family.build()
    with pytest.raises(InputError, match="single token"):
        record(model, family.inputs("single"), [[30]])
    text = record(model, family.inputs("text"), [[30, 31, 32]])
    with pytest.raises(InputError, match="picture"), Replay(model, [text], Fixation(focal=4)):
        pass
    with patch_model(model, "fixation", focal=1):
        pass  # the failed one left no patch


def test_layers_that_see_a_window_cost_nothing_and_cannot_be_the_last():
    family = FAMILIES["gemma3"]
    model = family.build()
    kinds = model.config.get_text_config().layer_types
    full = tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
    recording = record(model, family.inputs("single"), answers_of(1))
    with Replay(model, [recording], Fixation(focal=len(kinds), **OPTIONS)) as replay:
        found = greedy_removal(len(kinds), replay.cost)
        assert replay.cost((kinds.index("sliding_attention"),)) == float("inf")
    assert len(full) >= 1 and set(found.sets[1]) <= set(full)
