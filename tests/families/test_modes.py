"""Ways to generate and to train, each against the plain model with the dropped columns masked."""

from __future__ import annotations

import contextlib

import pytest
import torch
from transformers import CompileConfig, GenerationMixin, StaticCache
from transformers.cache_utils import StaticLayer

from tests.families.test_behaviours import METHODS, TOLERANCE, worst
from tests.fixed import Fixed
from tests.tiny.base import text_ids
from tests.tiny.models import FAMILIES, dropped_from
from tests.tiny.reference import append_tokens, conversation, fresh_positions, without
from tokenprune import patch_model
from tokenprune.errors import PatchError
from tokenprune.families import family_of

OLD = not hasattr(GenerationMixin, "_expand_multimodal_outputs")
"""A transformers that has faults of its own in beams and drafts, which newer ones have not."""

GREEDY = {"max_new_tokens": 5, "do_sample": False}
LOGITS = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
TYPES = ("mm_token_type_ids", "token_type_ids")
BEAMS = {"num_beams": 3, "num_return_sequences": 2}


@pytest.fixture(autouse=True)
def _record(request, record_property):
    """Which cell of the support table a test fills."""
    marker = request.node.get_closest_marker("behaviour")
    record_property("family", request.node.callspec.params["name"])
    record_property("behaviour", marker.args[0])


@pytest.fixture(autouse=True)
def _no_grad(request):
    with contextlib.nullcontext() if "gradients" in request.node.name else torch.no_grad():
        yield


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


def fails_anyway(request, family, k: int, what: str, options: dict, inputs: dict) -> None:
    """transformers cannot do it with this model, and a patch neither hides that nor answers wrongly."""
    request.node.user_properties.clear()  # no tick in the support table
    model = family.build()
    with pytest.raises(Exception, match=family.fails[what]):
        model.generate(**inputs, **GREEDY, **options)
    with patch_model(model, METHODS[k](), family.reader), pytest.raises(Exception, match=family.fails[what]):
        model.generate(**inputs, **GREEDY, **options)


# -- conversations ---------------------------------------------------------------------------------------------------


@pytest.mark.behaviour("4 turns")
@pytest.mark.parametrize("kind", ["single", "batch"])
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_second_turn_on_the_same_cache(name, k, kind):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)

    def talk():
        first = model.generate(**inputs, max_new_tokens=3, **LOGITS)
        rows, length = inputs["input_ids"].shape
        question = torch.tensor([text_ids(4, "turn", r) for r in range(rows)])
        whole = append_tokens(model, inputs, torch.cat([first.sequences[:, length:], question], 1))
        text = {n: whole[n] for n in ("input_ids", "attention_mask", *TYPES) if n in whole}
        return model.generate(**text, past_key_values=first.past_key_values, max_new_tokens=3, **LOGITS)

    with conversation(model, dropped_from(family, inputs), k, family.way):
        wanted = talk()
    with fresh_positions(model), patch_model(model, METHODS[k](), family.reader):
        got = talk()
    assert torch.equal(got.sequences, wanted.sequences)
    assert max(map(error, got.logits, wanted.logits)) < TOLERANCE


@pytest.mark.behaviour("4 turns")
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_new_image_in_turn_two(name, k, rows):
    """The masks are those of the whole conversation: the new image is not number 0 again.

    The reference is a conversation, too. A prefix model (PaliGemma) and one whose images see all of themselves only
    in one call (Gemma 3) answer otherwise when the whole is given at once, also without a patch.
    """
    family = FAMILIES[name]
    model = family.build()
    media = family.later or next(item for item in family.prompts["single"][0] if isinstance(item, str))
    prompts = [[4, media, 3, media, 6], [2, media, 7]][:rows]
    begun = [family.row(prompt, f"a{r}") for r, prompt in enumerate(prompts)]
    later = [family.row([5, media, 4], f"b{r}") for r in range(rows)]
    first, second = family.assemble(begun), family.assemble(later)
    whole = family.assemble([a + b for a, b in zip(begun, later)])
    length = first["input_ids"].shape[1]
    second = {n: v for n, v in second.items() if n not in TYPES}
    second |= {"input_ids": whole["input_ids"][:, length:], "attention_mask": whole["attention_mask"]}
    second |= {t: whole[t][:, length:] for t in TYPES if t in whole}
    if hasattr(model.base_model, "get_rope_index"):
        shape = {n: v for n, v in whole.items() if not n.startswith("pixel")}
        second["position_ids"] = model.base_model.get_rope_index(**shape)[0][..., length:]

    def talk():
        past = model(**first, use_cache=True).past_key_values
        return model(**second, past_key_values=past, use_cache=True).logits

    dropped = dropped_from(family, whole)
    with conversation(model, dropped, k, family.way):
        wanted = talk()
    with fresh_positions(model), patch_model(model, METHODS[k](), family.reader) as handle:
        got = talk()
        assert {i.ordinal for i in handle.report.images} == ({2} if rows == 1 else {1, 2})
    kept = (whole["attention_mask"].bool() & ~dropped)[:, length:]
    assert worst(got, wanted, kept) < TOLERANCE


# -- beams and drafts ------------------------------------------------------------------------------------------------


@pytest.mark.behaviour("5 beams and drafts")
@pytest.mark.parametrize("kind", ["single", "multi", "batch"])
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_beams(name, k, kind, request):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    expand = "_expand_inputs_for_generation"  # models that repeat each prompt's images bring their own
    if OLD and kind != "single" and getattr(type(model), expand) is getattr(GenerationMixin, expand):
        pytest.skip("this transformers gives beams the images of other prompts, unpatched too")
    if "beams" in family.fails and not OLD:
        fails_anyway(request, family, k, "beams", BEAMS, inputs)
        return
    with conversation(model, dropped_from(family, inputs), k, family.way):
        wanted = model.generate(**inputs, **GREEDY, **BEAMS)
    with fresh_positions(model), patch_model(model, METHODS[k](), family.reader):
        assert torch.equal(model.generate(**inputs, **GREEDY, **BEAMS), wanted)


@pytest.mark.behaviour("5 beams and drafts")
@pytest.mark.parametrize("draft", ["lookup", "assistant"])
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_drafted_tokens_are_taken_back_from_the_cache(name, k, draft):
    """With drafts the first call holds the prompt and tokens that may have to go again."""
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("single")
    options = (
        {"prompt_lookup_num_tokens": 3} if draft == "lookup" else {"assistant_model": family.build(seed=3)}
    )
    if model._is_stateful:  # a state cannot be taken back: transformers refuses, patched or not
        for patch in (contextlib.nullcontext(), patch_model(model, METHODS[k](), family.reader)):
            with patch, pytest.raises(ValueError, match="not supported with stateful models"):
                model.generate(**inputs, **GREEDY, **options)
        return
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if OLD and draft == "assistant" and kinds & {"sliding_attention", "chunked_attention"}:
        pytest.skip("this transformers fails to take drafts back from windows, unpatched too")
    with conversation(model, dropped_from(family, inputs), k, family.way):
        wanted = model.generate(**inputs, **GREEDY, **options)
        greedy = model.generate(**inputs, **GREEDY)
    with fresh_positions(model), patch_model(model, METHODS[k](), family.reader):
        got = model.generate(**inputs, **GREEDY, **options)
    assert torch.equal(got, wanted)
    if name != "paligemma":  # its prompt sees the drafts, also without a patch
        assert torch.equal(got, greedy)


# -- static caches ---------------------------------------------------------------------------------------------------


def has_static(model, k: int) -> bool:
    """Every layer from the cut on has a plain static cache: full attention, or a state, which is of one size anyway."""
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=8)
    return all(type(layer) is StaticLayer for layer in cache.layers[k:] if hasattr(layer, "get_mask_sizes"))


@pytest.mark.behaviour("6 static cache")
@pytest.mark.parametrize("kind", ["single", "batch"])
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_static_cache_gives_the_same_or_is_refused(name, k, kind):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    if OLD and name == "llama4":
        pytest.skip("this transformers makes no masks of chunks for static caches, unpatched too")
    options = GREEDY | {"cache_implementation": "static", "disable_compile": True}
    with patch_model(model, METHODS[k](), family.reader):
        if not has_static(model, k):
            with pytest.raises(PatchError, match="default dynamic cache"):
                model.generate(**inputs, **options)
            return
        got = model.generate(**inputs, **options)
        again = model.generate(**inputs, **options)
    with conversation(model, dropped_from(family, inputs), k, family.way):
        wanted = model.generate(**inputs, **GREEDY)
    assert torch.equal(got, wanted) and torch.equal(again, wanted)


@pytest.mark.slow
@pytest.mark.behaviour("6 static cache")
@pytest.mark.parametrize(("k", "kind"), zip(METHODS, ["batch", "single"]))
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl"])
def test_decoding_is_compiled_once_into_one_graph(request, name, k, kind):
    from torch._dynamo.exc import Unsupported
    from torch._dynamo.utils import counters

    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    with patch_model(model, METHODS[k](), family.reader):
        wanted = model.generate(**inputs, **GREEDY)
        torch._dynamo.reset()
        counters.clear()
        # A graph without a break waits for nothing on the host: a value read back would be one.
        compiled = CompileConfig(backend="aot_eager", fullgraph=True, mode=None)
        compiled._compile_all_devices = True  # transformers compiles on accelerators only, unless told so
        options = {"cache_implementation": "static", "compile_config": compiled}
        try:
            assert torch.equal(model.generate(**inputs, **GREEDY, **options), wanted)
        except Unsupported:
            request.node.user_properties.clear()  # no tick in the support table
            with pytest.raises(Unsupported):
                family.build().generate(**inputs, **GREEDY, **options)
            pytest.skip("this PyTorch cannot compile this model's decoding, patched or not")
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


# -- prefill in chunks -----------------------------------------------------------------------------------------------


def chunk_sizes(family, inputs) -> tuple[int, int]:
    """Tokens of a chunk so that all chunks end between images, and so that one ends inside."""
    images = family.visual_positions(inputs)[0]
    length = inputs["input_ids"].shape[1]

    def cuts(size):
        return any(int(p[0]) < end <= int(p[-1]) for p in images for end in range(size, length, size))

    return next(c for c in range(6, length) if not cuts(c)), next(c for c in range(6, length) if cuts(c))


@pytest.mark.behaviour("6 chunked prefill")
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_prefill_in_chunks_between_images(name, k, request):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("multi")
    good, bad = chunk_sizes(family, inputs)
    if not getattr(model, "_supports_mm_encoder_outputs", bool)():
        pytest.skip(
            "transformers drops the pixels of this model's prefill in chunks, or refuses it, unpatched too"
        )
    if "chunks" in family.fails:
        fails_anyway(request, family, k, "chunks", {"prefill_chunk_size": good}, inputs)
        return
    with conversation(model, dropped_from(family, inputs), k, family.way):
        wanted = model.generate(**inputs, **GREEDY, prefill_chunk_size=good)
    with fresh_positions(model), patch_model(model, METHODS[k](), family.reader):
        whole = family_of(model.config).joins
        for size in (bad, good) if whole else (bad,):
            with pytest.raises(PatchError, match="prefill_chunk_size cuts an image apart"):
                model.generate(**inputs, **GREEDY, prefill_chunk_size=size)
        if not whole:
            assert torch.equal(model.generate(**inputs, **GREEDY, prefill_chunk_size=good), wanted)
        model.generate(**inputs, **GREEDY)


@pytest.mark.behaviour("6 chunked prefill")
@pytest.mark.parametrize("name", ["llava"])
def test_a_chunk_lacks_what_looks_at_the_prompt(name):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("multi")
    if not getattr(model, "_supports_mm_encoder_outputs", bool)():
        pytest.skip("this transformers drops the pixels of a prefill in chunks, unpatched too")
    size, _ = chunk_sizes(family, inputs)
    for method, why in (("flashvlm", "before the question"), ("fastv", "whole prompt")):
        with patch_model(model, method, keep=0.4) as handle:
            with pytest.raises(PatchError, match=why):
                model.generate(**inputs, **GREEDY, prefill_chunk_size=size)
            if method == "flashvlm":
                handle.question(torch.tensor(text_ids(5, "question")))
                wanted = model.generate(**inputs, **GREEDY)
                assert torch.equal(model.generate(**inputs, **GREEDY, prefill_chunk_size=size), wanted)


@pytest.mark.behaviour("6 chunked prefill")
@pytest.mark.parametrize("name", ["llava"])
def test_a_batch_is_not_read_in_chunks(name):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("batch")
    if not getattr(model, "_supports_mm_encoder_outputs", bool)():
        pytest.skip("this transformers drops the pixels of a prefill in chunks, unpatched too")
    with patch_model(model, Fixed()), pytest.raises(PatchError, match="row by row"):
        model.generate(**inputs, **GREEDY, prefill_chunk_size=20)


# -- training --------------------------------------------------------------------------------------------------------


def loss_and_gradients(model, inputs, labels):
    model.zero_grad()
    loss = model(**inputs, labels=labels, use_cache=False).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(got, wanted):
    assert error(got[0], wanted[0]) < TOLERANCE
    assert got[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        assert (
            float((got[1][name] - gradient).abs().max()) <= TOLERANCE * float(gradient.abs().max()) + 1e-6
        ), name


@pytest.mark.behaviour("8 gradients")
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients_are_those_of_the_masked_model(name, k):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("batch")
    dropped = dropped_from(family, inputs)
    labels = inputs["input_ids"].clone()
    labels[:, :-4] = -100  # the answer; every row ends with at least so much text
    with without(model, dropped, k, family.way):
        wanted = loss_and_gradients(model, inputs, labels)
    with fresh_positions(model), patch_model(model, METHODS[k](), family.reader):
        assert_same(loss_and_gradients(model, inputs, labels), wanted)


@pytest.mark.behaviour("8 gradients")
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_with_checkpointing_are_the_same(name):
    family = FAMILIES[name]
    model, inputs = family.build().train(), family.inputs("batch")
    labels = inputs["input_ids"].clone()
    labels[:, :-4] = -100
    with fresh_positions(model), patch_model(model, Fixed(), family.reader):
        wanted = loss_and_gradients(model, inputs, labels)
        model.gradient_checkpointing_enable()
        try:
            got = loss_and_gradients(model, inputs, labels)
        except PatchError as refused:
            assert "newer transformers" in str(refused)
            return
    assert_same(got, wanted)
