"""What a decode step pays for a patch that has nothing to do in it: how many of our functions run, counted."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

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


def step(model, cache) -> tuple[Counter[str], Counter[str]]:
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

    token = torch.tensor([[7]])
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        model(input_ids=token, past_key_values=cache, use_cache=True)
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
