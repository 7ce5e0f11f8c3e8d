"""Attention and features of the tower as methods see them, against the eager tower's own weights."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from tests.hooks.spy import Spy
from tests.hooks.towers import expected
from tests.tiny.models import FAMILIES
from tests.tiny.reference import decoder_layers
from tokenprune import patch_model
from tokenprune.errors import UnsupportedModelError
from tokenprune.explain import explain

FIELDS = ("saliency", "vision_features", "vision_keys")
CASES = [(name, kind, "sdpa") for name, family in FAMILIES.items() for kind in family.kinds if kind != "text"]
CASES += [(name, kind, "eager") for name, kind, _ in CASES if kind in ("batch", "video")]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def merged_in(model, inputs: dict) -> list[torch.Tensor]:
    """(n, D) embeddings of each image and video where the language model receives them, in prompt order."""
    caught = []
    hook = decoder_layers(model)[0].register_forward_pre_hook(lambda m, args: caught.append(args[0]))
    model(**inputs, use_cache=False)
    hook.remove()
    return caught[0]


def in_prompt_order(family, inputs: dict, values: list[torch.Tensor]) -> list[torch.Tensor]:
    """From the payload's order, images before videos, to the order of the prompt."""
    kinds = {kind: len(n) for kind, n in family.lengths(inputs).items()}
    images, videos = values[: kinds["image"]], values[kinds["image"] :]
    out = []
    for row, places in zip(inputs["input_ids"], family.visual_positions(inputs)):
        for where in places:
            is_video = not images or (videos and int(row[where[0]]) == family.video_token_id)
            out.append((videos if is_video else images).pop(0))
    return out


def match(seen: list[dict], embeddings: torch.Tensor) -> dict:
    """The image whose features are these, up to the scale that Gemma applies."""
    same = [
        s for s in seen
        if s["features"].shape == embeddings.shape
        and torch.allclose(normalize(s["features"].flatten(), dim=0), normalize(embeddings.flatten(), dim=0), atol=1e-5)
    ]  # fmt: skip
    assert len(same) == 1
    return same[0]


@pytest.mark.parametrize("name,kind,attn", CASES)
def test_tower_fields_equal_the_eager_tower(name, kind, attn):
    family = FAMILIES[name]
    model, inputs = family.build(attn=attn), family.inputs(kind)
    hidden = merged_in(model, inputs)
    places = [(r, where) for r, row in enumerate(family.visual_positions(inputs)) for where in row]
    wanted = {f: in_prompt_order(family, inputs, v) for f, v in expected(name, model, inputs).items()}
    spy = Spy(fields=family.tower_fields)
    with patch_model(model, spy, family.reader):
        model(**inputs)
        forward = spy.images()
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
        generated = spy.images()
        assert model.config.get_text_config()._attn_implementation == attn
    for seen in (forward, generated):
        assert len(seen) == len(places)
        for i, (row, where) in enumerate(places):
            one = match(seen, hidden[row, where])
            assert int(one["ordinal"]) == sum(r == row for r, _ in places[:i])
            if "vision_features" in wanted:
                torch.testing.assert_close(one["vision_features"], wanted["vision_features"][i], rtol=1e-4, atol=1e-5)
            if "saliency" in wanted:
                torch.testing.assert_close(one["saliency"], wanted["saliency"][i][:, 0], rtol=1e-4, atol=1e-6)
                keys = one["vision_keys"]
                assert keys.shape[0] == len(where) and torch.isfinite(keys).all()


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.attends])
def test_a_tower_without_visible_attention_is_named_with_what_needs_none(name):
    family, method = FAMILIES[name], "visionzip"
    model = family.build()
    with pytest.raises(UnsupportedModelError, match="needs the vision tower's (attention|features), and ") as refused:
        patch_model(model, method)
    assert "divprune" in str(refused.value) and method not in str(refused.value).split("need none:")[1]
    found = explain(model)
    assert found.saliency == "none: " + str(refused.value).split(", and ")[1].split("; ")[0]
    assert found.methods[method] == str(refused.value)
    assert found.methods["divprune"] == "yes" and found.tested
    assert found.videos == ("one each" if "video" in family.kinds else "none")


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_named_tower_layers_are_read(name):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs()
    seen = {}
    for layer in (0, -1):
        spy = Spy(fields=(f"saliency@{layer}",))
        with patch_model(model, spy):
            model(**inputs)
        seen[layer] = spy.images()[0]["saliency"]
    assert seen[0].shape == seen[-1].shape and not torch.allclose(seen[0], seen[-1])


def test_only_what_is_asked_for_is_collected():
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs()
    spy = Spy()
    with patch_model(model, spy):
        model(**inputs)
    [one] = spy.images()
    assert all(one[f] is None for f in (*FIELDS, "text", "question"))


def test_the_tower_is_not_read_twice_for_a_cached_conversation():
    """Text-only calls and decode steps never touch the tower."""
    family = FAMILIES["llava"]
    model, calls = family.build(), []
    model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    with patch_model(model, Spy(fields=FIELDS)):
        model.generate(**family.inputs(), max_new_tokens=4, do_sample=False)
        model(**family.inputs("text"))
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["batch", "mixed_batch"])
def test_precomputed_features_carry_what_was_seen_of_them(kind):
    """`get_image_features` first, its output given to two calls."""
    family = FAMILIES["qwen2_5_vl"]
    model, inputs = family.build(), family.inputs(kind)
    spy = Spy(fields=FIELDS)
    with patch_model(model, spy):
        model(**inputs)
        plain = spy.images()
        first = model.generate(**inputs, max_new_tokens=1, do_sample=False)
        again = spy.images()
        assert torch.equal(model.generate(**inputs, max_new_tokens=1, do_sample=False), first)
        spy.take()
    for a, b in zip(plain, again):
        assert all(torch.equal(a[f], b[f]) for f in FIELDS)
