"""Several methods at once: each keep is a share of what reaches it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from tests.fixed import Fixed, FixedAtLayer
from tests.hooks.spy import Spy, SpyAtLayer
from tests.tiny.models import FAMILIES, fixed_mask
from tests.tiny.reference import eager, masked_columns, reference_prefill
from tokenprune import Selection, VisualTokens, patch_model
from tokenprune.budget import count
from tokenprune.methods import Reducer


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def nested_mask(n: int, ordinal: int) -> torch.Tensor:
    """(n,) what `fixed_mask` leaves of what `fixed_mask` leaves."""
    first = fixed_mask(n, ordinal)
    out = torch.zeros(n, dtype=torch.bool)
    out[first] = fixed_mask(int(first.sum()), ordinal)
    return out


def dropped_by(family, inputs, mask_fn) -> torch.Tensor:
    out = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    for row, images in zip(out, family.visual_positions(inputs)):
        for ordinal, where in enumerate(images):
            row[where] = ~mask_fn(len(where), ordinal)
    return out


@pytest.mark.parametrize("kind", ["multi", "batch"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "llava_next"])
def test_counts_multiply_over_a_chain_of_input_methods(name, kind):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    with patch_model(model, [("uniform", {"keep": 0.6}), ("random", {"keep": 0.5})]) as handle:
        got = model(**inputs).logits
        images = handle.report.images
    assert [i.after for i in images] == [count(0.5, count(0.6, i.before)) for i in images]
    assert len(images) == len(sum(family.visual_positions(inputs), []))
    dropped = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    for image, where in zip(images, sum(family.visual_positions(inputs), [])):
        stride = [i * (image.before - 1) // (count(0.6, image.before) - 1) for i in range(count(0.6, image.before))]
        assert set(image.kept) <= set(stride)
        dropped[image.row, where] = True
        dropped[image.row, where[image.kept]] = False
    wanted = reference_prefill(model, inputs, dropped)
    kept = inputs["attention_mask"].bool() & ~dropped
    assert float((got - wanted).abs().amax(-1)[kept].max() / wanted.abs().max()) < 1e-4


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("name,kind", [("llava", "batch"), ("qwen3_vl", "mixed_batch"), ("gemma3", "batch")])
def test_input_then_layer_equals_the_nested_reference(name, kind, attn):
    family = FAMILIES[name]
    model, inputs = family.build(attn=attn), family.inputs(kind)
    first, both = (dropped_by(family, inputs, fn) for fn in (fixed_mask, nested_mask))
    with eager(model), masked_columns(model, first, 0), masked_columns(model, both, 2):
        wanted = model(**inputs, use_cache=False).logits
    kept = inputs["attention_mask"].bool() & ~both
    with patch_model(model, [FixedAtLayer(), Fixed()]) as handle:  # run by stage, not by place
        got = model(**inputs).logits
        tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        alone = [model.generate(**row, max_new_tokens=3, do_sample=False)[0, -3:] for row in family.rows(kind)]
        model(**inputs)
        report = handle.report
    assert float((got - wanted).abs().amax(-1)[kept].max() / wanted.abs().max()) < 1e-4
    assert torch.equal(tokens[:, -3:], torch.stack(alone))
    assert report.physical[0] == report.physical[1] > report.physical[2]
    for image in report.images:
        mask = nested_mask(image.before, image.ordinal)
        assert image.kept == mask.nonzero()[:, 0].tolist()
        once = int(fixed_mask(image.before, image.ordinal).sum())
        assert image.per_layer == [once] * 2 + [image.after] * (len(report.physical) - 2)


@pytest.mark.parametrize("name,kind", [("llava", "batch"), ("llava_next", "multi"), ("qwen2_5_vl", "video")])
def test_a_later_stage_sees_what_is_left_with_its_own_coordinates(name, kind):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    fields = ("saliency", "vision_features")
    whole, after, inside = Spy(fields=fields), Spy(fields=fields), SpyAtLayer()
    with patch_model(model, [whole, after, inside]) as handle:
        model(**inputs)
        images = handle.report.images
    before, left, late = whole.images(), after.images(), inside.images()
    assert len(before) == len(left) == len(late) == len(images)
    for one in left:
        source = next(b for b in before if any(torch.equal(one["features"][0], f) for f in b["features"]))
        mask = fixed_mask(len(source["coords"]), int(source["ordinal"]))
        for field in ("coords", "features", *fields):
            assert torch.equal(one[field], source[field][mask])
        assert one["grid"] is None and one["ordinal"] == source["ordinal"]
    assert sorted(len(i["coords"]) for i in late) == sorted(
        int(fixed_mask(len(i["coords"]), int(i["ordinal"])).sum()) for i in left
    )


@dataclass(frozen=True)
class _Two(Reducer):
    """Several stages under one name."""

    def parts(self) -> tuple[Reducer, ...]:
        return FixedAtLayer(), Fixed()


def test_a_method_of_several_parts_is_its_chain():
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs()
    with patch_model(model, [Fixed(), FixedAtLayer()]):
        wanted = model(**inputs).logits
    with patch_model(model, _Two()):
        assert torch.equal(model(**inputs).logits, wanted)


@dataclass(frozen=True)
class _Noted(Fixed):
    """Leaves a note for whoever comes later."""

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        tokens.memo["ordinal"] = tokens.ordinal.clone()
        tokens.memo["first"] = tokens.features[:, 0].clone()
        return super().select(tokens, keep)


@pytest.mark.parametrize("kind", ["multi", "batch"])
def test_memo_follows_its_image(kind):
    family, seen = FAMILIES["llava"], []

    @dataclass(frozen=True)
    class Reader(FixedAtLayer):
        def select(self, tokens, keep):
            seen.append((tokens.ordinal.clone(), dict(tokens.memo)))
            return super().select(tokens, keep)

    model, inputs = family.build(), family.inputs(kind)
    with patch_model(model, [_Noted(), Reader()]):
        model(**inputs)
    assert len(seen) == len(sum(family.visual_positions(inputs), []))
    assert all(torch.equal(ordinal, memo["ordinal"]) for ordinal, memo in seen)
    assert len({tuple(memo["first"][0].tolist()) for _, memo in seen}) == len(seen)


@pytest.mark.parametrize("answer,error", [
    (lambda s, n: torch.ones(s, n + 1, dtype=torch.bool), "not"),
    (lambda s, n: torch.ones(s, n), "bool"),
    (lambda s, n: torch.zeros(s, n, dtype=torch.bool), "at least one"),
])  # fmt: skip
def test_answers_that_fit_nowhere_are_refused(answer, error):
    class Odd(Fixed):
        def select(self, tokens, keep):
            return Selection(answer(*tokens.shape[:2]))

    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs()
    plain = model(**inputs).logits
    with patch_model(model, Odd()), pytest.raises(RuntimeError, match=error):
        model(**inputs)
    assert torch.equal(model(**inputs).logits, plain)
