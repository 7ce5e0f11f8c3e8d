"""A patched tower inside a vision-language model, alone and together with `patch_model`."""

from __future__ import annotations

import pytest
import torch

from tests.tiny.models import FAMILIES
from tokenprune import patch_model, patch_tower
from tokenprune.errors import PatchError

from .make import blocks
from .reference import run

TOWERS = {"llava": 1, "vipllava": 1, "llava_next": 1, "paligemma": 0, "gemma3": 0, "llava_onevision": 0}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def stack(tower) -> list:
    return list(next(m for m in tower.modules() if isinstance(m, torch.nn.ModuleList)))


def entering(tower, call) -> torch.Tensor:
    """(pictures, n, D) tokens that enter the first block."""
    seen = []
    hook = stack(tower)[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    call()
    hook.remove()
    return torch.cat(seen)


def replaced(tower, states: list[torch.Tensor], call):
    """What `call` gives when block i of the unpatched tower answers states[i]."""
    at = [b.register_forward_hook(lambda *_, s=s: s, prepend=True) for b, s in zip(stack(tower), states)]
    try:
        return call()
    finally:
        for hook in at:
            hook.remove()


@pytest.mark.parametrize("name", TOWERS)
def test_the_model_reads_the_merged_tower(name):
    """Feature layers inside the tower included: LLaVA's is the one before the last, VipLLaVA's are two."""
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("batch")
    tower, prefix = model.model.vision_tower, TOWERS[name]
    plain = model(**inputs).logits
    tokens = entering(tower, lambda: model(**inputs))
    depth, r = len(stack(tower)), 2
    outcomes = [run(stack(tower), picture, prefix, [r] * depth) for picture in tokens]
    states = [torch.stack([o.states[i] for o in outcomes]).float() for i in range(depth)]
    expected = replaced(tower, states, lambda: model(**inputs).logits)
    with patch_tower(tower, r=r) as handle:
        merged = model(**inputs).logits
        assert handle.report.per_block == [tokens.shape[1] - prefix - r * (i + 1) for i in range(depth)]
        with patch_model(model, "uniform", keep=1.0):
            assert torch.equal(model(**inputs).logits, merged)
    torch.testing.assert_close(merged, expected, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(merged, plain, atol=1e-4)
    assert torch.equal(model(**inputs).logits, plain)


@pytest.mark.parametrize("order", ["tower first", "model first"])
def test_together_with_a_method_that_needs_nothing_of_the_tower(order):
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs("batch")
    with patch_tower(model.model.vision_tower, keep=0.6):
        features = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
    with patch_model(model, "uniform", keep=0.4):
        original = model.model.get_image_features

        def given(*args, **kwargs):
            out = original(*args, **kwargs)
            out.pooler_output = features
            return out

        model.model.__dict__["get_image_features"] = given
        expected = model(**inputs).logits
    model.model.__dict__.pop("get_image_features", None)
    steps = [
        lambda: patch_tower(model.model.vision_tower, keep=0.6),
        lambda: patch_model(model, "uniform", keep=0.4),
    ]
    handles = [step() for step in (steps if order == "tower first" else steps[::-1])]
    found = model(**inputs).logits
    for handle in handles:
        handle.remove()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("method", ["visionzip", "tome", "prumerge"])
def test_methods_that_read_the_towers_attention_are_refused_either_way(method):
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs("single")
    plain = model(**inputs).logits
    tower = patch_tower(model.model.vision_tower, r=2)
    with pytest.raises(PatchError, match=r"patch_tower merges.*uniform"):
        patch_model(model, method, keep=0.5)
    tower.remove()
    with patch_model(model, method, keep=0.5):
        with pytest.raises(PatchError, match="reads the attention of this tower"):
            patch_tower(model.model.vision_tower, r=2)
        model(**inputs)
    assert torch.equal(model(**inputs).logits, plain)


def test_generation_is_shorter_in_the_tower_only():
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs("batch")
    with patch_tower(model.model.vision_tower, r=4) as handle:
        ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert handle.report.after < handle.report.before
        first = model(**inputs).logits[:, -1].argmax(-1)
    assert torch.equal(ids[:, inputs["input_ids"].shape[1]], first)


def test_merged_tokens_do_not_fit_the_placeholders_without_unmerge():
    family = FAMILIES["llava"]
    model = family.build()
    with patch_tower(model.model.vision_tower, r=4, unmerge=False), pytest.raises(ValueError, match="match"):
        model(**family.inputs("single"))
    assert len(blocks(model.model.vision_tower)) == 3
