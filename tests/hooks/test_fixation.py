"""Decode steps that read a part of the cache, against one cache-free forward with a mask for every layer and row."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from tests.tiny.models import FAMILIES
from tests.tiny.reference import append_tokens, decoder_layers, eager, fresh_positions
from tokenprune import get_method, patch_model
from tokenprune.errors import BudgetError, TokenPruneError, UnsupportedModelError
from tokenprune.hooks.gaze import gaze_of

STEPS = 5
SLIDING = ("gemma3", "aya_vision", "cohere2_vision", "llama4")
"""Their sliding or chunked layers stay dense; gemma3's are tested apart."""
FULL = [n for n in FAMILIES if n not in (*SLIDING, "gemma4")]
"""Gemma 4 is refused, which is tested apart."""
CASES = [(n, k) for n in FULL for k in FAMILIES[n].kinds if "batch" in k or k == "multi"]


def full_layer(model):
    """A layer without a window: 1 where there is none at all."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or []
    return kinds.index("full_attention") if "sliding_attention" in kinds else 1


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def generate(model, inputs, steps=STEPS, **options):
    return model.generate(
        **inputs, max_new_tokens=steps, min_new_tokens=steps, do_sample=False, output_logits=True,
        return_dict_in_generate=True, **options,
    )  # fmt: skip


@contextmanager
def layer_masks(model, hidden):
    """Adds to every layer's mask what `hidden[layer]` (B, L, L) bool says."""

    def hook(place):
        def before(module, args, kwargs):
            mask = kwargs["attention_mask"]
            if mask is None or mask.dim() == 2:  # a layer that carries a state reads no keys
                return None
            return args, kwargs | {
                "attention_mask": mask.masked_fill(hidden[place][:, None], torch.finfo(mask.dtype).min)
            }

        return before

    hooks = [
        layer.register_forward_pre_hook(hook(place), with_kwargs=True)
        for place, layer in enumerate(decoder_layers(model))
    ]
    try:
        yield
    finally:
        for h in hooks:
            h.remove()


def reference(family, inputs, tokens, choices, focal):
    """Logits (B, steps - 1, V) of the decode steps: row by row, layer by layer what the choices allow."""
    model = family.build()
    full = append_tokens(model, inputs, tokens[:, :-1])
    batch, length = full["input_ids"].shape
    prompt, layers = inputs["input_ids"].shape[1], len(decoder_layers(model))
    visual = [
        torch.cat(w) if w else torch.empty(0, dtype=torch.long) for w in family.visual_positions(inputs)
    ]
    hidden = torch.zeros(layers, batch, length, length, dtype=torch.bool)
    chosen = {(step, layer): rows for step, layer, rows in choices}
    latest = None
    for step in range(tokens.shape[1] - 1):
        for layer in range(layers):
            if layer in focal:
                latest = chosen[step, layer]
            elif latest is not None:
                for row in range(batch):
                    away = torch.ones(len(visual[row]), dtype=torch.bool)
                    away[latest[row]] = False
                    hidden[layer, row, prompt + step, visual[row][away]] = True
    with eager(model), fresh_positions(model), layer_masks(model, hidden):
        return model(**full).logits[:, prompt:]


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_step_equals_the_masked_reference(name, kind, attn):
    family = FAMILIES[name]
    inputs, method = family.inputs(kind), get_method("fixation", keep=0.3, focal=(1,), k_min=1)
    model = family.build(attn=attn)
    plain = generate(model, inputs)
    with patch_model(model, method) as handle:
        out = generate(model, inputs)
        report = handle.report.fixation
    assert torch.equal(out.logits[0], plain.logits[0])  # prefill is untouched
    tokens = out.sequences[:, -STEPS:]
    wanted = reference(family, inputs, tokens, report.choices, report.focal)
    worst = max(
        float((wanted[:, t] - out.logits[t + 1]).abs().max() / wanted.abs().max()) for t in range(STEPS - 1)
    )
    assert worst < 1e-4
    assert report.steps == STEPS - 1 and report.focal == [1]
    for _step, layer, rows in report.choices:
        assert layer == 1
        for row, n in zip(rows, report.visual):
            assert len(row) == method.num_read(n) if n else row == []
    same = plain.sequences[:, -STEPS:] == tokens
    moved = max(float((a - b).abs().max()) for a, b in zip(plain.logits[1:], out.logits[1:]))
    assert moved > 1e-3 or not bool(same.all())


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "gemma4"])
@pytest.mark.parametrize("method", [
    get_method("fixation", keep=1.0, focal=(1,)),
    get_method("fixation", keep=0.1, k_min=1, focal=(0, 1, 2, 3)),
    get_method("fixation", keep=0.1, k_min=1, focal=(1,), dense=4),
], ids=["keep 1", "all focal", "all dense"])  # fmt: skip
def test_dense_settings_equal_the_dense_run(name, method):
    family = FAMILIES[name]
    inputs, model = family.inputs("batch"), family.build()
    layers = len(decoder_layers(model))
    options = {**method.hyper(), "focal": layers if len(method.focal) == 4 else (full_layer(model),)}
    options["dense"] = layers if method.dense else 0
    method = get_method("fixation", **options)
    plain = generate(model, inputs)
    with patch_model(model, method):
        out = generate(model, inputs)
    assert torch.equal(plain.sequences, out.sequences)
    assert all(
        torch.allclose(a, b, atol=1e-4 * float(a.abs().max())) for a, b in zip(plain.logits, out.logits)
    )


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_the_cache_stays_whole(name):
    family = FAMILIES[name]
    inputs, model = family.inputs("batch"), family.build()
    plain = generate(model, inputs).past_key_values
    with patch_model(model, "fixation", keep=0.2, k_min=1, focal=(full_layer(model),)):
        pruned = generate(model, inputs).past_key_values
    prompt = inputs["input_ids"].shape[1]
    assert plain.get_seq_length() == pruned.get_seq_length()
    for a, b in zip(plain.layers, pruned.layers):
        assert a.keys.shape == b.keys.shape
        most = min(prompt, a.keys.shape[2])
        if not getattr(a, "is_sliding", False):
            assert torch.equal(a.keys[:, :, :most], b.keys[:, :, :most])
            assert torch.equal(a.values[:, :, :most], b.values[:, :, :most])
    model(
        input_ids=inputs["input_ids"][:, -1:], past_key_values=pruned
    )  # nothing was dropped: usable unpatched


def test_batch_rows_equal_single_runs():
    family = FAMILIES["llava"]
    model, options = family.build(), dict(keep=0.3, k_min=1, focal=(1,))
    with patch_model(model, "fixation", **options) as handle:
        together = generate(model, family.inputs("batch"))
        rows = handle.report.fixation.choices
        for i, row in enumerate(family.rows("batch")):
            alone = generate(model, row)
            assert torch.equal(together.sequences[i, -STEPS:], alone.sequences[0, -STEPS:])
            for (_, _, many), (_, _, one) in zip(rows, handle.report.fixation.choices):
                assert many[i] == one[0]


def test_heads_groups_and_counts():
    family = FAMILIES["qwen2_5_vl"]
    model, inputs = family.build(), family.inputs("batch")
    seen = {}
    for key, options in {
        "mean": {}, "max": {"heads": "max"}, "group": {"per_group": True}, "two": {"focal": 2}, "count": {"keep": 3},
    }.items():  # fmt: skip
        with patch_model(model, "fixation", **{"keep": 0.3, "k_min": 1, "focal": (1,), **options}) as handle:
            out = generate(model, inputs)
            seen[key] = handle.report.fixation
        assert all(torch.isfinite(step).all() for step in out.logits)
    assert all(len(row) == 3 for _, _, rows in seen["count"].choices for row in rows)
    assert len(seen["two"].focal) == 2 and len(seen["two"].choices) == 2 * (STEPS - 1)
    most = [len(r) for _, _, rows in seen["mean"].choices for r in rows]
    grouped = [len(r) for _, _, rows in seen["group"].choices for r in rows]
    assert all(g >= m for g, m in zip(grouped, most))  # the union over key heads


def test_beams_follow_their_rows():
    """Beam search with everything focal is the plain one; with less it runs, and its state has a row for each beam."""
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs("single")
    plain = model.generate(**inputs, num_beams=3, max_new_tokens=6, do_sample=False)
    layers = len(decoder_layers(model))
    with patch_model(model, "fixation", keep=0.2, k_min=1, focal=layers):
        assert torch.equal(model.generate(**inputs, num_beams=3, max_new_tokens=6, do_sample=False), plain)
    with patch_model(model, "fixation", keep=0.2, k_min=1, focal=(1,)):
        out = model.generate(
            **inputs, num_beams=3, max_new_tokens=6, do_sample=False, return_dict_in_generate=True
        )
        gaze = gaze_of(out.past_key_values)
        assert gaze.chosen.shape[0] == 3 and len(gaze.counts) == 3


def test_reordering_moves_the_choice_with_its_row():
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs("batch")
    with patch_model(model, "fixation", keep=0.3, k_min=1, focal=(1,)):
        cache = generate(model, inputs).past_key_values
        gaze = gaze_of(cache)
        before, counts = gaze.chosen.clone(), list(gaze.counts)
        cache.reorder_cache(torch.tensor([1, 0]))
        assert torch.equal(gaze.chosen, before[[1, 0]]) and gaze.counts == counts[::-1]
        cache.batch_repeat_interleave(2)
        assert torch.equal(gaze.chosen, before[[1, 1, 0, 0]])
        cache.batch_select_indices(torch.tensor([0, 3]))
        assert torch.equal(gaze.chosen, before[[1, 0]])


def test_behind_a_cut_only_what_is_left_is_looked_at():
    """A chain: half of the tokens go before the language model, and of the rest a third is read."""
    for name, kind in (("llava", "batch"), ("qwen2_5_vl", "mixed_batch")):
        family = FAMILIES[name]
        model, inputs = family.build(), family.inputs(kind)
        chain = [("uniform", {"keep": 0.5}), ("fixation", {"keep": 0.3, "k_min": 1, "focal": (1,)})]
        with patch_model(model, chain) as handle:
            out = generate(model, inputs)
            report = handle.report
        offsets: dict[int, int] = {}
        alive: dict[int, set[int]] = {}
        for image in report.images:
            start = offsets.get(image.row, 0)
            alive.setdefault(image.row, set()).update(start + i for i in image.kept)
            offsets[image.row] = start + image.before
        for _, _, rows in report.fixation.choices:
            for row, chosen in enumerate(rows):
                assert set(chosen) <= alive.get(row, set())
        with patch_model(model, [chain[0], ("fixation", {"keep": 1.0, "focal": (1,)})]):
            whole = generate(model, inputs)
        with patch_model(model, "uniform", keep=0.5):
            cut = generate(model, inputs)
        assert torch.equal(whole.sequences, cut.sequences) and len(out.logits) == STEPS
        assert all(
            torch.allclose(a, b, atol=1e-4 * float(a.abs().max())) for a, b in zip(whole.logits, cut.logits)
        )


def test_what_cannot_be_is_refused():
    model = FAMILIES["llava"].build()
    with pytest.raises(BudgetError, match="layers"):
        patch_model(model, "fixation", focal=9)
    with pytest.raises(BudgetError, match="takes 0 to"):
        patch_model(model, "fixation", focal=(7,))
    with pytest.raises(TokenPruneError, match="both act at decode time"):
        patch_model(model, ["fixation", ("fastocr", {"keep": 0.2})])
    for bad in ({"focal": ()}, {"heads": "sum"}, {"k_min": 0}, {"dense": -1}, {"keep": 0}):
        with pytest.raises(TokenPruneError):
            get_method("fixation", **bad)
    assert patch_model(model, "fastocr", focal=1).methods[0].name == "fixation"


def test_a_focal_layer_with_a_window_is_said():
    family = FAMILIES["gemma3"]
    model, inputs = family.build(), family.inputs("single")
    kinds = model.config.get_text_config().layer_types
    sliding, full = kinds.index("sliding_attention"), kinds.index("full_attention")
    with patch_model(model, "fixation", focal=(full,), k_min=1) as handle:
        generate(model, inputs)
        assert {layer for _, layer, _ in handle.report.fixation.choices} == {full}
    refused = pytest.raises(UnsupportedModelError, match="sliding")
    with patch_model(model, "fixation", focal=(sliding,), k_min=1), refused:
        generate(model, inputs)


def test_removed_and_disabled_patches_leave_the_dense_model():
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs("batch")
    plain = generate(model, inputs)
    with patch_model(model, "fixation", keep=0.2, k_min=1, focal=(1,)) as handle, handle.disabled():
        assert all(torch.equal(a, b) for a, b in zip(generate(model, inputs).logits, plain.logits))
    assert all(torch.equal(a, b) for a, b in zip(generate(model, inputs).logits, plain.logits))
    for module in model.modules():
        assert "_tokenprune_taps" not in module.__dict__
