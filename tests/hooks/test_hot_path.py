"""What a decode step pays for a patch that has nothing to do in it: how many of our functions run, counted."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import StaticCache

import tokenprune
from tests.tiny.models import FAMILIES
from tests.tiny.reference import decoder_layers
from tokenprune import get_method, patch_model
from tokenprune.hooks.attention import _DISPATCHER

OURS = str(Path(tokenprune.__file__).parent)


@pytest.fixture(autouse=True)
def _nobody_else_observes():
    """A model that another test left patched may keep the attention dispatcher in place."""
    others = _DISPATCHER.users
    if others:
        _DISPATCHER.users = 1
        _DISPATCHER.uninstall()
    yield
    if others:
        _DISPATCHER.install()
        _DISPATCHER.users = others


def step(model, cache, mask=None) -> tuple[Counter[str], Counter[str]]:
    """One decode step; our functions that ran inside the decoder layers, and those that ran elsewhere, by name."""
    layers = {id(layer) for layer in decoder_layers(model)}
    inside: Counter[str] = Counter()
    once: Counter[str] = Counter()

    def profile(frame, event, _argument):
        if event != "call" or not frame.f_code.co_filename.startswith(OURS):
            return
        caller = frame.f_back
        while caller is not None and id(caller.f_locals.get("self")) not in layers:
            caller = caller.f_back
        (once if caller is None else inside)[frame.f_code.co_name] += 1

    token = torch.tensor([[21]] * (1 if mask is None else len(mask)))
    places = None if mask is None else mask.sum(1, keepdim=True) - 1  # as `generate` gives them
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        model(
            input_ids=token, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
        )
    finally:
        sys.setprofile(before)
    return inside, once


def prompt(family, model, images: bool):
    inputs = family.inputs("single")
    if not images:
        inputs = {"input_ids": torch.tensor([[5, 6, 7, 8, 9]]), "attention_mask": torch.ones(1, 5).long()}
    return model(**inputs, use_cache=True).past_key_values


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize(
    ("method", "images"),
    [
        (get_method("random", keep=0.5), True),  # every layer's cache is pruned
        (get_method("random", keep=0.5), False),
        (get_method("fixation", keep=0.5), False),
        (get_method("fixation", keep=0.5, k_min=1, focal=(1,)), False),
    ],
    ids=["pruned", "pruning, text only", "fixation, text only", "one focal layer, text only"],
)
def test_at_most_two_calls_a_layer_and_step_where_there_is_nothing_to_do(name, method, images):
    family = FAMILIES[name]
    model = family.build()
    layers = len(decoder_layers(model))
    with torch.no_grad(), patch_model(model, method):
        cache = prompt(family, model, images)
        step(model, cache)
        inside, once = step(model, cache)
    assert 0 < inside.total() <= 2 * layers, inside
    assert once.total() <= 40, once  # most of them a generator's turns, in what comes before the layers


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("kind", ["text", "batch"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "gemma4"])
def test_padding_and_windows_make_it_no_more(name, kind, static):
    """Left padding, rows that keep unequal numbers of tokens, sliding layers and layers that share another's keys.

    A mask is made physical once a step, in the first layer of each kind; the other layers find it.
    """
    if name not in FAMILIES or (static and name.startswith("gemma")):
        pytest.skip("static caches with sliding layers are refused")
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    layers, kinds = decoder_layers(model), 1 if name in ("llava", "qwen2_5_vl") else 2
    mask = inputs["attention_mask"]
    cache = StaticCache(model.config.get_text_config(), max_cache_len=mask.shape[1] + 8) if static else None
    with torch.no_grad(), patch_model(model, "random", keep=0.5):
        cache = model(**inputs, past_key_values=cache, use_cache=True).past_key_values
        for _ in range(2):
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            inside, once = step(model, cache, mask)
    assert inside["before"] == len(layers) and inside["enter_layer"] <= kinds
    once_a_step = {n: c for n, c in inside.items() if n not in ("before", "update")}
    assert inside["before"] + inside["update"] <= 2 * len(layers), inside
    assert sum(once_a_step.values()) <= 24 * kinds, inside  # making the mask of each kind
    assert kind == "text" or inside["enter_layer"] == kinds
    assert once.total() <= 80, once


def test_layers_that_scale_by_place_ask_how_many_tokens_there_are_and_pay_no_more():
    """Llama 4's layers without RoPE read the cache's length in their own forward."""
    family = FAMILIES["llama4"]
    model = family.build()
    layers = decoder_layers(model)
    asking = sum(not layer.self_attn.use_rope for layer in layers)
    with torch.no_grad(), patch_model(model, "random", keep=0.5):
        cache = prompt(family, model, True)
        step(model, cache)
        inside, _ = step(model, cache)
    assert asking and inside["before"] == inside["update"] == len(layers) and inside["get_seq_length"] == asking
    assert not {"enter", "begin", "correct"} & inside.keys(), "the correction of a prompt is not there"
    others = {n: c for n, c in inside.items() if n not in ("before", "update", "get_seq_length")}
    assert sum(others.values()) <= 24 * 2, "a mask for each kind of layer, once a step"


def test_every_call_is_seen():
    family = FAMILIES["llava"]
    model = family.build()
    layers = len(decoder_layers(model))
    with torch.no_grad(), patch_model(model, "random", keep=0.5):
        cache = prompt(family, model, True)
        inside, once = step(model, cache)
    assert inside == {"before": layers, "update": layers} and once["_enter"] == 1
    with torch.no_grad():
        cache = prompt(family, model, True)
        assert step(model, cache) == (Counter(), Counter())
