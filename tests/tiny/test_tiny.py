"""The bench itself: models run, the reference without drops is the plain model, and dropping matters."""

from __future__ import annotations

import functools

import pytest
import torch

from .models import FAMILIES, dropped_from, fixed_mask
from .reference import decoder_layers, reference_generate, reference_prefill

CASES = [(name, kind) for name, family in FAMILIES.items() for kind in family.kinds]
WITH_MEDIA = [case for case in CASES if case[1] != "text"]


@functools.lru_cache(maxsize=1)
def built(name):
    return FAMILIES[name].build()


def close(a, b, scale, way="masked"):
    """States gather rounding over a whole sequence, and a row alone is summed up in other blocks than a padded one."""
    torch.testing.assert_close(a, b, rtol=0, atol={"masked": 1e-5, "rows": 1e-4}[way] * float(scale))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_reference_without_drops_is_the_plain_model(name, kind):
    model, inputs, way = built(name), FAMILIES[name].inputs(kind), FAMILIES[name].way
    nothing = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    with torch.no_grad():
        plain = model(**inputs).logits
    real = inputs["attention_mask"].bool()
    scale = plain[real].abs().max()
    assert 1 < scale < 25
    for k in (0, 2):
        close(reference_prefill(model, inputs, nothing, k, way)[real], plain[real], scale, way)
    assert model.config.get_text_config()._attn_implementation == "sdpa"
    tokens, logits = reference_generate(model, inputs, nothing, 0, 4, way)
    out = model.generate(
        **inputs, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    assert torch.equal(out.sequences[:, inputs["input_ids"].shape[1] :], tokens)
    for ours, theirs in zip(logits, out.logits, strict=True):
        close(ours, theirs, scale, way)


@pytest.mark.parametrize(("name", "kind"), WITH_MEDIA)
def test_dropping_matters(name, kind):
    family, model = FAMILIES[name], built(name)
    inputs = family.inputs(kind)
    dropped = dropped_from(family, inputs)
    assert 0.5 < dropped.sum() / sum(len(i) for row in family.visual_positions(inputs) for i in row) < 0.7
    kept = inputs["attention_mask"].bool() & ~dropped
    nothing = torch.zeros_like(dropped)
    plain = reference_prefill(model, inputs, nothing, 0, family.way)
    for k in (0, 2):
        change = (reference_prefill(model, inputs, dropped, k, family.way) - plain)[:, -1].abs().amax(-1)
        assert change.min() > 1e-3, f"k={k}: the last logits changed by {change.tolist()} only"
    assert torch.isfinite(plain[kept]).all()


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[1].endswith("batch")])
def test_rows_of_a_batch_are_rows_alone(name, kind):
    family, model = FAMILIES[name], built(name)
    inputs, rows = family.inputs(kind), family.rows(kind)
    if family.level:
        with torch.no_grad():
            batch, alone = model(**inputs).logits[-1, -1], model(**rows[-1]).logits[-1, -1]
        assert (batch - alone).abs().max() > 1e-3
        model = family.build()
        family.level(model)
    assert len({int(m.sum()) for m in inputs["attention_mask"]}) > 1, "rows should differ in length"
    with torch.no_grad():
        batch = model(**inputs).logits
        for r, row in enumerate(rows):
            alone = model(**row).logits[0]
            close(batch[r, -len(alone) :], alone, alone.abs().max(), family.way)
    # the same tokens are dropped too, counted from the right end
    for r, row in enumerate(rows):
        width = row["input_ids"].shape[1]
        assert torch.equal(dropped_from(family, inputs)[r, -width:], dropped_from(family, row)[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_each_image_matters_alone(name):
    family, model = FAMILIES[name], built(name)
    inputs = family.inputs("multi")
    nothing = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    plain = reference_prefill(model, inputs, nothing, 0, family.way)[:, -1]
    images = family.visual_positions(inputs)[0]
    assert len(images) == 2
    for where in images:
        assert 9 <= len(where) <= 40
        dropped = nothing.clone()
        dropped[0, where] = True
        assert (reference_prefill(model, inputs, dropped, 0, family.way)[:, -1] - plain).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llava", "llava_next", "mistral3"])
def test_reference_is_the_attention_mask_at_layer_0(name):
    """Another way to drop tokens from the first layer on, for models with 1-D positions and causal masks."""
    family, model = FAMILIES[name], built(name)
    inputs = family.inputs("batch")
    dropped = dropped_from(family, inputs)
    mask = inputs["attention_mask"]
    other = inputs | {
        "attention_mask": mask * ~dropped,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
    }
    with torch.no_grad():
        expected = model(**other).logits
    kept = mask.bool() & ~dropped
    close(reference_prefill(model, inputs, dropped)[kept], expected[kept], expected.abs().max())


@pytest.mark.parametrize("name", FAMILIES)
def test_same_seed_same_model_whatever_the_attention(name):
    family, model = FAMILIES[name], built(name)
    other = family.build(attn="eager")
    assert other.config.get_text_config()._attn_implementation == "eager"
    with torch.no_grad():
        a, b = model(**family.inputs("multi")).logits, other(**family.inputs("multi")).logits
        close(a, b, a.abs().max(), family.way)
        assert (family.build(seed=1)(**family.inputs("multi")).logits - a).abs().max() > 0.1


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_before_k_see_everything(name):
    family, model = FAMILIES[name], built(name)
    inputs = family.inputs("single")
    dropped = dropped_from(family, inputs)
    layers = decoder_layers(model)
    seen = []
    hooks = [layer.register_forward_hook(lambda _m, _a, out: seen.append(out)) for layer in layers]
    reference_prefill(model, inputs, torch.zeros_like(dropped), 0, family.way)
    reference_prefill(model, inputs, dropped, 2, family.way)
    for hook in hooks:
        hook.remove()
    plain, pruned = seen[: len(layers)], seen[len(layers) :]
    assert torch.equal(plain[1], pruned[1])
    assert (plain[3][0, -1] - pruned[3][0, -1]).abs().max() > 1e-3  # a convolution at 2 may not reach so far
    everything = reference_prefill(model, inputs, torch.zeros_like(dropped), 0, family.way)
    late = reference_prefill(model, inputs, dropped, len(layers), family.way)
    assert torch.equal(late[~dropped], everything[~dropped])


def test_fixed_mask():
    assert fixed_mask(25, 0).sum() == 10
    assert torch.equal(fixed_mask(25, 0), fixed_mask(25, 0))
    assert not torch.equal(fixed_mask(25, 0), fixed_mask(25, 1))
    assert all(fixed_mask(n, 0).sum() >= 1 for n in range(1, 40))
