"""What `patch_model` accepts, refuses and takes back; each refusal says what to do instead."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
import transformers
from torch import nn
from transformers.modeling_utils import AttentionInterface

from tests.fixed import AllTrue, Fixed
from tests.refused import (
    make_blip,
    make_florence,
    make_instructblip,
    make_instructblipvideo,
    make_llama,
    make_mllama,
)
from tests.tiny.models import FAMILIES
from tokenprune import Reducer, TokenPruneError, get_method, patch_model, unpatch_model
from tokenprune.errors import BudgetError, InputError, PatchError, UnknownNameError, UnsupportedModelError
from tokenprune.families import SUPPORTED
from tokenprune.recipe import load_recipe


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def llava():
    return FAMILIES["llava"].build()


def state_of(model: nn.Module) -> dict:
    """All that a patch may touch: attributes and hooks of every module, and the attention interface."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_always_called")
    modules = {
        name: (set(vars(m)), {h: list(vars(m)[h].values()) for h in hooks}) for name, m in model.named_modules()
    }
    return {"modules": modules, "attention": dict(AttentionInterface._global_mapping)}


# -- models ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make,why", [
    (make_llama, "get_image_features"),
    (make_mllama, "cross-attention"),
    (make_florence, "encoder"),
    (make_blip, "Q-former"),
    (make_instructblip, "Q-former"),
    (make_instructblipvideo, "Q-former"),
])  # fmt: skip
def test_models_without_images_in_the_sequence_are_refused(make, why):
    model = make()
    before = state_of(model)
    with pytest.raises(UnsupportedModelError, match=why) as raised:
        patch_model(model, "uniform")
    assert type(model).__name__ in str(raised.value)
    assert all(name in str(raised.value) for name in SUPPORTED)
    assert state_of(model) == before


def test_things_that_are_no_model_at_all_are_refused():
    with pytest.raises(UnsupportedModelError, match="Linear"):
        patch_model(nn.Linear(2, 2), "uniform")
    with pytest.raises(UnsupportedModelError, match="str"):
        patch_model("llava-hf/llava-1.5-7b-hf", "uniform")


class _OwnTower(nn.Module):
    """A tower with attention of its own that nobody can observe."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.config = tower.config
        self.embed = nn.Conv2d(3, 32, 8, 8)
        self.blocks = nn.ModuleList([nn.MultiheadAttention(32, 4, batch_first=True) for _ in range(3)])

    def forward(self, pixel_values, **_):
        states = [self.embed(pixel_values).flatten(2).transpose(1, 2)]
        states[0] = torch.cat([states[0][:, :1], states[0]], 1)
        for block in self.blocks:
            states.append(states[-1] + block(*[states[-1]] * 3)[0])
        return transformers.modeling_outputs.BaseModelOutput(states[-1], tuple(states))


def test_a_tower_without_observable_attention_is_refused_where_it_is_needed(llava):
    llava.model.vision_tower = _OwnTower(llava.model.vision_tower).eval()
    before = state_of(llava)
    with pytest.raises(UnsupportedModelError, match=r"_OwnTower.*random.*uniform") as raised:
        patch_model(llava, "flashvlm")
    assert "pool" in str(raised.value) and state_of(llava) == before
    with patch_model(llava, get_method("flashvlm", keep=5, eta=1.0)) as handle:  # by the question alone
        llava(**FAMILIES["llava"].inputs())
        assert handle.report.after == 5


@pytest.mark.parametrize("method", ["vispruner", "visionzip", "prumerge", "prumerge+", "holov"])
def test_methods_seeded_by_the_tower_name_those_that_are_not(llava, method):
    llava.model.vision_tower = _OwnTower(llava.model.vision_tower).eval()
    before = state_of(llava)
    with pytest.raises(UnsupportedModelError, match=r"attention.*_OwnTower.*pool.*soft_resample") as raised:
        patch_model(llava, method)
    assert not any(f" {seeded}," in f"{raised.value}," for seeded in ("visionzip", "holov", "prumerge"))
    assert state_of(llava) == before


# -- methods and numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name,hyper,hints", [
    ("flashvml", {}, ["flashvlm"]),
    ("unifrom", {}, ["uniform"]),
    ("no such thing at all", {}, ["random", "uniform", "pool"]),
    ("uniform", {"keeep": 0.5}, ["keep"]),
    ("flashvlm", {"importance_ratio": 0.5}, ["important_ratio"]),
])  # fmt: skip
def test_unknown_names_are_answered_with_their_neighbours(llava, name, hyper, hints):
    with pytest.raises(UnknownNameError) as raised:
        patch_model(llava, name, **hyper)
    assert all(hint in str(raised.value) for hint in hints)
    assert "\\n" not in str(raised.value) and not str(raised.value).startswith("'")


@pytest.mark.parametrize("keep", [0, -3, 0.0, -0.1, 1.5, math.nan, math.inf, True, "half", None])
def test_keep_outside_its_range(llava, keep):
    before = state_of(llava)
    with pytest.raises(BudgetError, match=r"share in \(0, 1\].*count >= 1"):
        patch_model(llava, "uniform", keep=keep)
    assert state_of(llava) == before


def test_a_count_above_what_there_is_keeps_all_and_says_so_once(llava):
    inputs = FAMILIES["llava"].inputs("multi")
    plain = llava(**inputs).logits
    with patch_model(llava, "uniform", keep=26) as handle:
        with pytest.warns(UserWarning, match="26.*25"):
            assert torch.equal(llava(**inputs).logits, plain)
        assert handle.report.after == handle.report.before == 50
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            llava(**inputs)
    with patch_model(llava, "uniform", keep=25), warnings.catch_warnings():
        warnings.simplefilter("error")
        llava(**inputs)


class _AtLayer(AllTrue):
    stage = "layer"

    def __init__(self, layer) -> None:
        object.__setattr__(self, "keep", 0.5)
        object.__setattr__(self, "layer", layer)


@pytest.mark.parametrize("layer", [4, -1, 1.0, 99])
def test_a_layer_outside_the_model(llava, layer):
    before = state_of(llava)
    with pytest.raises(BudgetError, match="0 to 3"):
        patch_model(llava, _AtLayer(layer))
    assert state_of(llava) == before


def test_needs_that_nobody_serves_are_named(llava):
    class Odd(AllTrue):
        needs = frozenset({"aura"})

    with pytest.raises(UnsupportedModelError, match="Odd needs aura"):
        patch_model(llava, Odd())


@pytest.mark.parametrize("arguments,error,match", [
    (dict(method=["uniform", "random"], keep=0.5), BudgetError, "keep with a chain"),
    (dict(method=[]), TokenPruneError, "empty chain"),
    (dict(), TokenPruneError, "give a method"),
    (dict(method=Fixed(), keep=0.5), TokenPruneError, "constructor"),
    (dict(method="uniform", recipe="x.yaml"), TokenPruneError, "not both"),
    (dict(method=[("uniform", {"kep": 1})]), UnknownNameError, "keep"),
    (dict(method=42), TokenPruneError, "42"),
    (dict(method=["uniform", 42]), TokenPruneError, "42"),
    (dict(method=Reducer), TokenPruneError, "Reducer"),
])  # fmt: skip
def test_bad_combinations(llava, arguments, error, match):
    before = state_of(llava)
    with pytest.raises(error, match=match):
        patch_model(llava, **arguments)
    assert state_of(llava) == before


# -- patch, unpatch ----------------------------------------------------------------------------------------------


def test_a_second_patch_is_refused_and_the_first_goes_on(llava):
    inputs = FAMILIES["llava"].inputs()
    llava(**inputs)  # transformers leaves hooks of its own behind
    before = state_of(llava)
    handle = patch_model(llava, "uniform", keep=5)
    for target in (llava, llava.model):
        with pytest.raises(PatchError, match=r"remove\(\) it first.*chain"):
            patch_model(target, "random")
    llava(**inputs)
    assert handle.report.after == 5 and handle.active
    handle.remove()
    handle.remove()  # nothing to do
    unpatch_model(llava)
    assert not handle.active and state_of(llava) == before
    with patch_model(llava, "random", keep=4) as other:
        handle.remove()  # nor does it touch somebody else's patch
        llava(**inputs)
        assert other.report.after == 4
        unpatch_model(llava)
        assert not other.active


@pytest.mark.parametrize("name", ["llava", "qwen3_vl"])
def test_removal_leaves_nothing_behind(name):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs()
    plain = model(**inputs).logits
    before = state_of(model)
    handle = patch_model(model, "flashvlm", keep=0.3)
    assert state_of(model) != before
    assert not torch.equal(model(**inputs).logits, plain)
    handle.remove()
    assert state_of(model) == before
    assert torch.equal(model(**inputs).logits, plain)


@pytest.mark.parametrize("failing", range(6))  # the projector, the composite and four layers get one each
def test_a_failing_install_takes_everything_back(llava, monkeypatch, failing):
    inputs = FAMILIES["llava"].inputs()
    plain, before = llava(**inputs).logits, state_of(llava)
    count, original = iter(range(6)), nn.Module.register_forward_pre_hook

    def register(*args, **kwargs):
        if next(count) == failing:
            raise MemoryError("no room for a hook")
        return original(*args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(nn.Module, "register_forward_pre_hook", register)
        patch_model(llava, "flashvlm")
    assert state_of(llava) == before
    assert torch.equal(llava(**inputs).logits, plain)
    patch_model(llava, "flashvlm").remove()


# -- recipes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["flashvlm", ["uniform", ("random", {"keep": 0.5, "seed": 3})]])
def test_a_recipe_round_trip(llava, method, tmp_path):
    inputs = FAMILIES["llava"].inputs()
    with patch_model(llava, method) as handle:
        wanted = llava(**inputs).logits
        path = handle.recipe().save(tmp_path / "deep" / "recipe.yaml")
        methods = handle.methods
    for recipe in (path, str(path), load_recipe(path)):
        with patch_model(llava, recipe=recipe) as again:
            assert again.methods == methods
            assert torch.equal(llava(**inputs).logits, wanted)
    with patch_model(llava, Fixed()) as handle, pytest.raises(TokenPruneError, match="Fixed is not registered"):
        handle.recipe()


@pytest.mark.parametrize("body", [
    "", "methods:", "methods: uniform", "methods: []", "methods: [3]", "methods: [{keep: 1}]", "- a\n- b", "a: [",
    "!!python/object/apply:os.getcwd []", "methods: [{name: 3}]", "\x00", "methods: {name: uniform}",
])  # fmt: skip
def test_broken_recipes_are_named(llava, body, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(body)
    with pytest.raises(InputError, match=r"broken\.yaml"):
        patch_model(llava, recipe=path)
    with pytest.raises(InputError, match=r"absent\.yaml"):
        patch_model(llava, recipe=tmp_path / "absent.yaml")


def test_handles_describe_themselves(llava):
    with patch_model(llava, ["uniform", "random"]) as handle:
        assert "uniform, random, active" in repr(handle)
        assert handle.model is llava and handle.report is None
    assert "removed" in repr(handle)
