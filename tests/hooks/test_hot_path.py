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

OURS = str(Path(tokenprune.__file__).parent)


def step(model, cache, length: int) -> Counter[str]:
    """One decode step; our functions that ran in it, by name."""
    seen: Counter[str] = Counter()

    def profile(frame, event, _argument):
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            seen[frame.f_code.co_name] += 1

    token = torch.tensor([[7]])
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        model(
            input_ids=token,
            attention_mask=torch.ones(1, length + 1).long(),
            past_key_values=cache,
            use_cache=True,
        )
    finally:
        sys.setprofile(before)
    return seen


def prompt(family, model, images: bool):
    inputs = family.inputs("single")
    if not images:
        inputs = {"input_ids": torch.tensor([[5, 6, 7, 8, 9]]), "attention_mask": torch.ones(1, 5).long()}
    return model(**inputs, use_cache=True).past_key_values, inputs["input_ids"].shape[1]


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
        cache, length = prompt(family, model, images)
        step(model, cache, length)
        seen = step(model, cache, length + 1)
    once = Counter({k: n for k, n in seen.items() if n < layers})  # of the whole step, not of a layer
    of_layers = sum((seen - once).values())
    assert 0 < of_layers <= 2 * layers, seen
    assert sum(once.values()) <= 16, once


def test_every_call_is_seen():
    family = FAMILIES["llava"]
    model = family.build()
    layers = len(decoder_layers(model))
    with torch.no_grad(), patch_model(model, "random", keep=0.5):
        cache, length = prompt(family, model, True)
        seen = step(model, cache, length)
    assert seen["before"] == layers and seen["update"] == layers and seen["_enter"] == 1
    model.eval()
    with torch.no_grad():
        cache, length = prompt(family, model, True)
        assert not step(model, cache, length)
