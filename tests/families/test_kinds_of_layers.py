"""Layers that carry a state, and layers that read another one's keys: what cannot be done with them is refused."""

from __future__ import annotations

import pytest
import torch

from tests.fixed import Fixed
from tests.tiny.models import FAMILIES
from tokenprune import get_method, patch_model
from tokenprune.errors import BudgetError, PatchError, UnsupportedModelError
from tokenprune.explain import explain


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", ["lfm2_vl", "qwen3_5"])
def test_a_layer_without_attention_is_not_looked_at(name):
    """Layers 1 and 3 attend, so what looks at the layer before can cut at 2, not at 3."""
    model, inputs = FAMILIES[name].build(), FAMILIES[name].inputs("single")
    with pytest.raises(BudgetError, match="of layer 2, which is a linear attention or convolution.*takes 2"):
        patch_model(model, "fastv", layer=3, budget="after")
    with patch_model(model, "fastv", layer=2, budget="after", keep=0.5) as handle:
        model(**inputs)
        assert handle.report.after < handle.report.before
    facts = explain(model)
    assert facts.states == 2 and "2 layers carry a state" in str(facts) and facts.methods["fastv"] == "yes"


def test_unequal_rows_do_not_go_on_from_a_state():
    family = FAMILIES["lfm2_vl"]
    model = family.build()
    first = family.assemble([family.row([3, "3x4", 4], f"a{r}") for r in range(2)])
    second = family.assemble([family.row([2, m, 4], f"b{r}") for r, m in enumerate(("3x4", "5x3"))])
    second["attention_mask"] = torch.cat([first["attention_mask"], second["attention_mask"]], 1)
    with patch_model(model, Fixed()):
        past = model(**first, use_cache=True).past_key_values
        with pytest.raises(PatchError, match="go row by row"):
            model(**second, past_key_values=past)


@pytest.mark.skipif("minicpmv4_6" not in FAMILIES, reason="this transformers reads pictures of one size only")
def test_frames_that_nothing_joins_are_videos_of_their_own():
    family = FAMILIES["minicpmv4_6"]
    model = family.build()
    assert explain(model).videos == "each frame by itself"
    with patch_model(model, Fixed()) as handle:
        model(**family.inputs("video"))
        assert [(i.kind, i.grid) for i in handle.report.images] == [("video", (1, 3, 4))] * 2


def test_cuts_lie_before_the_layers_that_share_keys():
    model = FAMILIES["gemma4"].build()
    for layer in (4, 5):
        with pytest.raises(BudgetError, match="takes 0 to 3"):
            patch_model(model, get_method("pyramiddrop", layers=(layer,)))
    with pytest.raises(UnsupportedModelError, match="shares keys from layer 4 on"):
        patch_model(model, "fixation", focal=(1,))
    facts = explain(model)
    assert facts.tested and facts.cut_below == 4 and "shares keys" in facts.methods["fixation"]


def test_a_clip_of_several_frames_is_beyond_transformers():
    """Kimi K2.5 averages over a clip's frames, and splits the result as if it had not: unpatched."""
    family = FAMILIES["kimi_k25"]
    model, inputs = family.build(), family.inputs("single")
    assert explain(model).videos == "none"
    inputs["pixel_values_videos"] = inputs.pop("pixel_values").repeat(2, 1, 1, 1)
    inputs["video_grid_thw"] = inputs.pop("image_grid_thw") * torch.tensor([2, 1, 1])
    inputs["input_ids"] = inputs["input_ids"].where(inputs["input_ids"] != family.image_token_id, 6)
    with pytest.raises(RuntimeError, match="split"):
        model(**inputs)
