"""The behaviours every family is tested for, against a reference that masks and never shortens."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.fixed import AllTrue, Fixed, FixedAtLayer
from tests.tiny.models import FAMILIES, dropped_from
from tests.tiny.reference import reference_generate, reference_prefill
from tokenprune import get_method, patch_model
from tokenprune.kernels import attention as attention_kernel

CASES = [(name, kind) for name, family in FAMILIES.items() for kind in family.kinds if kind != "text"]
BATCHES = [(name, kind) for name, kind in CASES if kind.endswith("batch")]
EVERY = [(name, kind, "sdpa") for name, kind in CASES] + [(name, kind, "eager") for name, kind in BATCHES]
"""A batch holds what the other kinds hold, so eager attention is tried on batches only."""
METHODS = {0: Fixed, 2: FixedAtLayer}
TOLERANCE = 1e-4  # of the largest logit, fp32


@pytest.fixture(autouse=True)
def _record(request, record_property):
    """Which cell of the support table a test fills."""
    marker = request.node.get_closest_marker("behaviour")
    if marker and "name" in request.node.callspec.params:
        record_property("family", request.node.callspec.params["name"])
        record_property("behaviour", marker.args[0])
        if request.node.callspec.params.get("kind", "").startswith(("video", "mixed", "thin")):
            record_property("video", "10 video")


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def worst(got: torch.Tensor, wanted: torch.Tensor, where: torch.Tensor) -> float:
    """Largest difference at the chosen positions, relative to the largest logit."""
    return float((got - wanted).abs().amax(-1)[where].max() / wanted.abs().max())


def real_tokens(inputs: dict) -> torch.Tensor:
    return inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()


@pytest.mark.behaviour("1 identity")
@pytest.mark.parametrize("name,kind,attn", EVERY)
def test_all_true_is_bit_equal_and_so_is_the_model_afterwards(name, kind, attn):
    family = FAMILIES[name]
    model, inputs = family.build(attn=attn), family.inputs(kind)
    plain = model(**inputs).logits
    options = dict(max_new_tokens=3, do_sample=False)
    tokens = model.generate(**inputs, **options)
    for reducer in (AllTrue(), get_method("uniform", keep=1.0)):
        with patch_model(model, reducer, family.reader):
            assert torch.equal(model(**inputs).logits, plain)
            assert torch.equal(model.generate(**inputs, **options), tokens)
    assert torch.equal(model(**inputs).logits, plain)


@pytest.mark.behaviour("2 prefill and decode")
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name,kind,attn", EVERY)
def test_pruned_prefill_and_decode_equal_the_masked_reference(name, kind, k, attn):
    family = FAMILIES[name]
    model, inputs = family.build(attn=attn), family.inputs(kind)
    dropped = dropped_from(family, inputs)
    plain = model(**inputs).logits
    wanted = reference_prefill(model, inputs, dropped, k, family.way)
    tokens, steps = reference_generate(model, inputs, dropped, k, 3, family.way)
    kept = real_tokens(inputs) & ~dropped
    with patch_model(model, METHODS[k](), family.reader) as handle:
        assert worst(model(**inputs).logits, wanted, kept) < TOLERANCE
        out = model.generate(
            **inputs, max_new_tokens=3, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        assert model.config.get_text_config()._attn_implementation == attn
        report = handle.report
    assert float((plain - wanted).abs().amax(-1)[kept].max()) > 1e-3  # else nothing was pruned
    assert torch.equal(out.sequences[:, -3:], tokens)
    for got, step in zip(out.logits, steps):
        assert float((got - step).abs().max() / step.abs().max()) < TOLERANCE
    assert report.before - report.after == int(dropped.sum())
    assert report.physical[-1] < report.logical and report.physical[0] == (
        report.logical if k else report.physical[-1]
    )


@pytest.mark.behaviour("3 batch")
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name,kind", BATCHES)
def test_a_padded_batch_equals_its_rows(name, kind, k):
    family = FAMILIES[name]
    model = family.build()
    if family.level:
        family.level(model)
    options = dict(max_new_tokens=3, do_sample=False, output_logits=True, return_dict_in_generate=True)
    with patch_model(model, METHODS[k](), family.reader):
        together = model.generate(**family.inputs(kind), **options)
        alone = [model.generate(**row, **options) for row in family.rows(kind)]
    for step, got in enumerate(together.logits):
        for row, single in enumerate(alone):
            wanted = single.logits[step][0]
            assert float((got[row] - wanted).abs().max() / wanted.abs().max()) < TOLERANCE


@pytest.mark.behaviour("7 sdpa and eager")
@pytest.mark.parametrize("name", FAMILIES)
def test_sdpa_and_eager_agree_when_pruned(name):
    family, logits = FAMILIES[name], []
    inputs = family.inputs("batch")
    kept = real_tokens(inputs) & ~dropped_from(family, inputs)
    for attn in ("sdpa", "eager"):
        model = family.build(attn=attn)
        with patch_model(model, Fixed()):
            logits.append(model(**inputs).logits)
        assert model.config.get_text_config()._attn_implementation == attn
    assert worst(logits[0], logits[1], kept) < TOLERANCE


class _Squares(TorchDispatchMode):
    """Counts square float results of at least `side` tokens: what a whole attention or similarity matrix would be."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side, self.found = side, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = {v.untyped_storage().data_ptr() for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)}
        for value in tree_leaves(out):
            if not isinstance(value, torch.Tensor) or value.untyped_storage().data_ptr() in known:  # a view
                continue
            if value.dtype.is_floating_point and value.dim() >= 2:
                self.found += value.shape[-2] == value.shape[-1] >= self.side
        return out


@pytest.mark.behaviour("9 no N x N")
@pytest.mark.parametrize("name", FAMILIES)
def test_no_square_of_the_tokens_is_allocated(name, monkeypatch):
    """With the block size shrunk to a few rows, scoring must not fall back on the whole matrix at once."""
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("single")
    side = int(sum(len(p) for p in family.visual_positions(inputs)[0]) * 0.75)
    monkeypatch.setattr(attention_kernel, "BLOCK_BYTES", 1024)
    without = {} if family.attends else {"eta": 1.0}  # what the tower hides
    if "vision_features" not in family.tower_fields:
        without["important_ratio"] = 1.0
    with _Squares(side) as plain:
        model(**inputs)
    with (
        patch_model(model, "flashvlm", keep=0.4, **without),
        _Squares(side) as pruned,
    ):  # no count here equals a head size
        model(**inputs)
    assert pruned.found <= plain.found
