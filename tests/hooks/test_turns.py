"""Conversations on a pruned cache: later turns, new images, beams, and what is refused because it would be wrong."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import GenerationMixin

from tests.fixed import Fixed, FixedAtLayer
from tests.tiny.base import text_ids
from tests.tiny.models import FAMILIES, dropped_from
from tests.tiny.reference import append_tokens, reference_generate, reference_prefill
from tokenprune import get_method, patch_model
from tokenprune.errors import PatchError

METHODS = {0: Fixed, 2: FixedAtLayer}
LOGITS = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
TYPES = ("mm_token_type_ids", "token_type_ids")


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


def text_only(inputs: dict) -> dict:
    """What a text turn passes on: no pixels, those are in the cache."""
    return {k: inputs[k] for k in ("input_ids", "attention_mask", *TYPES) if k in inputs}


def continued(model, inputs: dict, sequences: torch.Tensor) -> tuple[dict, torch.Tensor]:
    """The prompt with the answer and another question behind it, and those new tokens."""
    rows, length = inputs["input_ids"].shape
    question = torch.tensor([text_ids(4, "turn", r) for r in range(rows)])
    new = torch.cat([sequences[:, length:], question], 1)
    return append_tokens(model, inputs, new), new


@pytest.mark.parametrize("kind", ["single", "batch"])
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "paligemma"])
def test_second_turn_on_the_same_cache(name, k, kind):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    with patch_model(model, METHODS[k]()) as handle:
        first = model.generate(**inputs, max_new_tokens=3, **LOGITS)
        whole, new = continued(model, inputs, first.sequences)
        got = model.generate(
            **text_only(whole), past_key_values=first.past_key_values, max_new_tokens=3, **LOGITS
        )
        assert len(handle.report.images) == len(sum(family.visual_positions(inputs), []))
    dropped = torch.cat([dropped_from(family, inputs), torch.zeros_like(new, dtype=torch.bool)], 1)
    tokens, logits = reference_generate(model, whole, dropped, k, steps=3)
    assert torch.equal(got.sequences[:, -3:], tokens)
    assert max(map(error, got.logits, logits)) < 1e-4


@pytest.mark.parametrize("kind", ["one", "two"])
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name,media", [("llava", "image"), ("qwen2_5_vl", "3x4"), ("llava_onevision", "video")])
def test_a_new_image_in_turn_two(name, media, k, kind):
    """The masks are those of the whole conversation at once: the new image is not number 0 again."""
    family = FAMILIES[name]
    model = family.build()
    prompts = [[4, media, 3, media, 6], [2, media, 7]][: 1 if kind == "one" else 2]
    rows = [family.row(prompt, f"a{r}") for r, prompt in enumerate(prompts)]
    later = [family.row([5, media, 4], f"b{r}") for r in range(len(rows))]
    first, whole = family.assemble(rows), family.assemble([a + b for a, b in zip(rows, later)])
    length = first["input_ids"].shape[1]
    second = {k: v for k, v in family.assemble(later).items() if k not in TYPES}
    second |= {"input_ids": whole["input_ids"][:, length:], "attention_mask": whole["attention_mask"]}
    second |= {t: whole[t][:, length:] for t in TYPES if t in whole}
    if hasattr(model.model, "get_rope_index"):
        shape = {k: v for k, v in whole.items() if not k.startswith("pixel")}
        second["position_ids"] = model.model.get_rope_index(**shape)[0][..., length:]
    dropped = dropped_from(family, whole)
    wanted = reference_prefill(model, whole, dropped, k)[:, length:]
    kept = (whole["attention_mask"].bool() & ~dropped)[:, length:]
    with patch_model(model, METHODS[k]()) as handle:
        past = model(**first, use_cache=True).past_key_values
        got = model(**second, past_key_values=past, use_cache=True).logits
        assert {i.ordinal for i in handle.report.images} == ({2} if kind == "one" else {1, 2})
    assert error(got[kept], wanted[kept]) < 1e-4


def test_a_new_image_in_turn_two_through_generate():
    family = FAMILIES["llava"]
    model, inputs, more = family.build(), family.inputs("single"), family.inputs("multi")
    with patch_model(model, get_method("random", keep=7)) as handle:
        first = model.generate(**inputs, max_new_tokens=3, **LOGITS)
        whole, _ = continued(model, inputs, first.sequences)
        ids = torch.cat([whole["input_ids"], more["input_ids"][:, 1:]], 1)
        call = {"attention_mask": torch.ones_like(ids), "pixel_values": more["pixel_values"]}
        got = model.generate(ids, **call, past_key_values=first.past_key_values, max_new_tokens=3, **LOGITS)
        assert [i.ordinal for i in handle.report.images] == [1, 2]
        call["pixel_values"] = torch.cat([inputs["pixel_values"], more["pixel_values"]])
        wanted = model.generate(ids, **call, max_new_tokens=3, **LOGITS)
        assert [i.ordinal for i in handle.report.images] == [0, 1, 2]
    assert torch.equal(got.sequences, wanted.sequences)
    assert max(map(error, got.logits, wanted.logits)) < 1e-4


@pytest.mark.parametrize("name,kind", [
    ("llava", "multi"), ("llava", "batch"), ("qwen2_5_vl", "multi"), ("qwen2_5_vl", "batch"), ("qwen3_vl", "batch"),
    ("gemma3", "batch"), ("llava", "single"),
])  # fmt: skip
@pytest.mark.parametrize("method", [Fixed(), FixedAtLayer(), get_method("flashvlm", keep=0.4)])
def test_beams_with_a_cache_are_beams_without_one(name, kind, method):
    """Transformers repeats the images of a prompt for its beams; what is known of each has to follow."""
    if name in ("llava", "gemma3") and not hasattr(GenerationMixin, "_expand_multimodal_outputs"):
        pytest.skip("this transformers gives the beams of a prompt with several images the wrong ones, unpatched too")
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    if method.name == "flashvlm":  # fixed question: without a cache the prompt grows
        ids = torch.tensor(text_ids(5, "question"))
    options = dict(max_new_tokens=4, num_beams=3, do_sample=False, num_return_sequences=2)
    with patch_model(model, method) as handle:
        if method.name == "flashvlm":
            handle.question(ids)
        cached = model.generate(**inputs, **options)
        rows = handle.report.images
        plain = model.generate(**inputs, **options, use_cache=False)
    assert torch.equal(cached, plain)
    lengths = [[len(p) for p in row] for row in family.visual_positions(inputs) for _ in range(3)]
    assert [[i.before for i in rows if i.row == r] for r in range(len(lengths))] == lengths


# -- what would be wrong ---------------------------------------------------------------------------------------------


def test_disabled_is_the_plain_model_and_the_patch_comes_back():
    family = FAMILIES["qwen2_5_vl"]
    model, inputs = family.build(), family.inputs()
    plain = model(**inputs).logits
    tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    with patch_model(model, "flashvlm", keep=0.2) as handle:
        pruned = model(**inputs).logits
        with handle.disabled():
            assert torch.equal(model(**inputs).logits, plain)
            assert torch.equal(model.generate(**inputs, max_new_tokens=3, do_sample=False), tokens)
            with handle.disabled():
                pass
            assert torch.equal(model(**inputs).logits, plain)
        assert torch.equal(model(**inputs).logits, pruned) and not torch.equal(pruned, plain)
        with pytest.raises(ZeroDivisionError), handle.disabled():
            raise ZeroDivisionError
        assert torch.equal(model(**inputs).logits, pruned)


@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_a_pruned_cache_without_its_patch_raises(name, k):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs()

    def step(past):
        ids = torch.tensor([[50, 51]])
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(ids)], 1)
        extra = {"token_type_ids": torch.zeros_like(ids)} if "token_type_ids" in inputs else {}
        return model(input_ids=ids, attention_mask=mask, past_key_values=past, use_cache=True, **extra).logits

    handle = patch_model(model, METHODS[k]())
    past = model(**inputs, use_cache=True).past_key_values
    ways_out = "empty cache, or keep the patch"
    with handle.disabled(), pytest.raises(PatchError, match=ways_out):
        step(past)
    other = model(**inputs, use_cache=True).past_key_values
    wanted = step(other)
    past = model(**inputs, use_cache=True).past_key_values
    handle.remove()
    with pytest.raises(PatchError, match=ways_out):
        step(past)
    with patch_model(model, METHODS[k]()), pytest.raises(PatchError, match="another patch"):
        step(past)
    step(model(**inputs, use_cache=True).past_key_values)  # an unpruned one is fine
    assert torch.isfinite(wanted).all()


@pytest.mark.parametrize("new_image", [False, True])
def test_a_query_aware_method_warns_once_on_a_later_turn(new_image):
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs()
    with patch_model(model, "flashvlm", keep=5):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # decode steps are no later turn
            out = model.generate(**inputs, max_new_tokens=3, **LOGITS)
        for turn in range(2):
            whole, _ = continued(model, inputs, out.sequences)
            call = text_only(whole)
            if new_image:
                more = family.inputs("single")
                call["input_ids"] = torch.cat([call["input_ids"], more["input_ids"]], 1)
                call = {**call, "attention_mask": torch.ones_like(call["input_ids"])}
                call["pixel_values"] = more["pixel_values"]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                out = model.generate(**call, past_key_values=out.past_key_values, max_new_tokens=2, **LOGITS)
            told = [w for w in caught if "first question" in str(w.message)]
            assert len(told) == (turn == 0)
            inputs = {"input_ids": out.sequences[:, :-2], "attention_mask": torch.ones_like(out.sequences[:, :-2])}
    with patch_model(model, "uniform", keep=5), warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs = family.inputs()
        out = model.generate(**inputs, max_new_tokens=3, **LOGITS)
        call = text_only(continued(model, inputs, out.sequences)[0])
        model.generate(**call, past_key_values=out.past_key_values, max_new_tokens=2, **LOGITS)


def test_a_static_sliding_cache_is_refused_with_what_works():
    family = FAMILIES["gemma3"]
    model, inputs = family.build(), family.inputs()
    with patch_model(model, "uniform", keep=5):
        with pytest.raises(PatchError, match="default dynamic cache"):
            model.generate(**inputs, max_new_tokens=2, cache_implementation="static")
        wanted = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    with patch_model(model, "uniform", keep=5):
        assert torch.equal(model.generate(**inputs, max_new_tokens=2, do_sample=False), wanted)


def test_embeddings_without_ids_are_refused():
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs()
    call = {k: v for k, v in inputs.items() if k != "input_ids"}
    call["inputs_embeds"] = model.get_input_embeddings()(inputs["input_ids"])
    model(**call)
    with patch_model(model, "uniform", keep=5) as handle:
        with pytest.raises(PatchError, match="input_ids"):
            model(**call)
        model(**inputs)
        assert handle.report.after == 5
        text = {k: v for k, v in family.inputs("text").items() if k != "input_ids"}
        text["inputs_embeds"] = model.get_input_embeddings()(family.inputs("text")["input_ids"])
        model(**text)  # nothing to prune in text


def test_a_call_that_fails_leaves_the_patch_usable():
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs()
    with patch_model(model, "flashvlm", keep=5):
        wanted = model(**inputs).logits
        with pytest.raises(Exception):  # noqa: B017
            model(**{**inputs, "pixel_values": torch.cat([inputs["pixel_values"]] * 2)})
        assert torch.equal(model(**inputs).logits, wanted)
