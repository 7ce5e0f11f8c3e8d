"""Fields served inside the language model, against the attention matrices of an eager, unpatched forward."""

from __future__ import annotations

import pytest
import torch

from tests.hooks.spy import SpyAtLayer
from tests.tiny.models import FAMILIES
from tests.tiny.reference import decoder_layers
from tokenprune import get_method, patch_model
from tokenprune.errors import BudgetError, PatchError

K = 2
FIELDS = ("queries", "keys", "attention", "text_attention", "received", "text", "text_keys")
CASES = [(n, kind) for n, family in FAMILIES.items() for kind in family.kinds if "batch" in kind or kind == "single"]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def reference(family, inputs):
    """(B, H, L, L) attention of layer K - 1 and (B, L, D) hidden states entering layer K, of the unpatched model."""
    model, entering = family.build(attn="eager"), []
    hook = decoder_layers(model)[K].register_forward_pre_hook(
        lambda layer, args, kwargs: entering.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    out = model(**inputs, output_attentions=True)
    hook.remove()
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"] * K
    place = sum(kind.endswith("attention") and kind != "linear_attention" for kind in kinds[: K - 1])
    return out.attentions[place].double(), entering[0]  # layers without attention have no entry


def images_of(family, inputs, seen):
    """(group, place in it, batch row, logical places) of every image that was shown, in the order of the prompt."""
    shown = {}
    for group in seen:
        for s in range(group.shape[0]):
            shown.setdefault(round(float(group.features[s].double().sum()), 6), (group, s))
    _, hidden = reference(family, inputs)
    for row, places in enumerate(family.visual_positions(inputs)):
        for where in places:
            total = float(hidden[row, where].double().sum())
            key = min(shown, key=lambda k: abs(k - total))
            assert abs(key - total) < 1e-2 * max(1.0, abs(total))
            yield *shown[key], row, where


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_fields_are_those_of_the_layer_before(name, kind, attn):
    family = FAMILIES[name]
    inputs, spy = family.inputs(kind), SpyAtLayer(fields=FIELDS, layer=K)
    attention, hidden = reference(family, inputs)
    model = family.build(attn=attn)
    with patch_model(model, spy, family.reader) as handle:
        model(**inputs)
        finder = handle._engine.question
        seen = spy.take()
    mask = inputs["attention_mask"].bool()
    checked = 0
    for group, s, row, where in images_of(family, inputs, seen):
        mean = attention[row].mean(0)  # (L, L)
        real = mask[row].nonzero().flatten()
        assert torch.allclose(group.features[s], hidden[row, where], atol=1e-4)
        assert torch.allclose(group.attention[s].double(), mean[real[-1], where], atol=1e-5)
        assert torch.allclose(group.received[s].double(), mean[real][:, where].mean(0), atol=1e-5)
        asked = question_places(finder, family, inputs, row)
        assert group.text_mask[s].sum() == len(asked)
        valid = group.text_mask[s]
        assert torch.allclose(group.text_attention[s][valid].double(), mean[asked][:, where], atol=1e-5)
        assert bool((group.text_attention[s][~valid] == 0).all())
        assert torch.allclose(group.text[s][valid], hidden[row, asked], atol=1e-4)
        check_products(group, s, attention[row], where, asked, valid)
        checked += 1
    assert checked == sum(len(p) for p in family.visual_positions(inputs))


def question_places(finder, family, inputs, row):
    """Text behind the last image, no special token and no padding: what the finder does without a processor."""
    ids = inputs["input_ids"][row]
    visual = torch.zeros_like(ids, dtype=torch.bool)
    for where in family.visual_positions(inputs)[row]:
        visual[where] = True
    text = ~visual & inputs["attention_mask"][row].bool()
    for special in finder.special:
        text &= ids != special
    last = int(visual.nonzero()[-1]) + 1 if bool(visual.any()) else 0
    behind = text.clone()
    behind[:last] = False
    return (behind if bool(behind.any()) else text).nonzero().flatten()


def check_products(group, s, attention, where, asked, valid):
    """log A differs along a row as scaled q.k does, head by head: norms, RoPE and grouped heads are all in it."""
    queries, keys = group.queries[s].double(), group.keys[s].double()  # (H, N, d), (Hkv, N, d)
    heads = queries.shape[0]
    keys = keys.repeat_interleave(heads // keys.shape[0], 0)
    rows = attention[:, where][:, :, where]  # (H, N, N)
    ordered = where[:, None] >= where[None]
    visible = ordered & (rows > 1e-12).all(0)
    logs, products = rows.clamp(min=1e-30).log(), queries @ keys.transpose(1, 2)
    n, first = len(where), visible.float().argmax(1)  # a key every query of the row may look at
    assert bool(visible.any(1).all())
    pick = first[None, :, None].expand(heads, n, 1)
    difference = (logs - logs.gather(2, pick))[:, visible]
    product = (products - products.gather(2, pick))[:, visible]
    scale = float((difference * product).sum() / product.square().sum().clamp(min=1e-30))
    assert scale > 0 and torch.allclose(difference, scale * product, atol=2e-4)
    text = group.text_keys[s].double()[:, valid].repeat_interleave(heads // group.text_keys.shape[1], 0)
    if len(asked) > 1:  # text behind the image: its keys give the same logits, seen from the image's last token only
        assert text.shape[1] == len(asked) and torch.isfinite(text).all()


def test_text_keys_are_the_keys_of_the_question():
    """The question's keys where a visual token can look at them: the question in front of the image."""
    family = FAMILIES["llava"]
    inputs = family.inputs("single")
    spy = SpyAtLayer(fields=("text_keys", "text", "queries", "attention"), layer=K)
    attention, _ = reference(family, inputs)
    model = family.build()
    where = family.visual_positions(inputs)[0][0]
    before = list(range(int(where[0])))
    with patch_model(model, spy) as handle:
        finder = handle._engine.question
        finder.find = lambda ids, layout, padding: (torch.arange(ids.shape[1]) < int(where[0]))[None]
        model(**inputs)
    group = spy.take()[0]
    queries = group.queries[0].double()
    keys = group.text_keys[0].double().repeat_interleave(queries.shape[0] // group.text_keys.shape[1], 0)
    logs = attention[0][:, where][:, :, before].log()
    products = queries @ keys.transpose(1, 2) * queries.shape[-1] ** -0.5
    assert torch.allclose(logs - logs[..., :1], products - products[..., :1], atol=2e-4)


def test_right_padding_looks_from_the_last_real_token():
    family = FAMILIES["llava"]
    alone, spy = family.inputs("single"), SpyAtLayer(fields=("attention",), layer=K)
    model = family.build()
    ids, extra = alone["input_ids"], 3
    padded = {
        **alone,
        "input_ids": torch.cat([ids, ids.new_zeros(1, extra)], 1),
        "attention_mask": torch.cat([alone["attention_mask"], ids.new_zeros(1, extra)], 1),
    }
    with patch_model(model, spy):
        model(**alone)
        one = spy.take()[0].attention
        model(**padded)
        assert torch.allclose(spy.take()[0].attention, one, atol=1e-6)


def test_a_second_cut_sees_what_the_first_left():
    """Rows of the physical sequence after a cut at the input: the same tokens, fewer of them."""
    family = FAMILIES["qwen2_5_vl"]
    inputs = family.inputs("mixed_batch" if "mixed_batch" in family.kinds else "batch")
    spy = SpyAtLayer(fields=("queries", "attention", "keys", "text_attention"), layer=K)
    model = family.build()
    with patch_model(model, [get_method("uniform", keep=0.5), spy]) as handle:
        model(**inputs)
        report = handle.report
    groups = spy.take()
    assert sorted(g.shape[1] for g in groups for _ in range(g.shape[0])) == sorted(
        get_method("uniform", keep=0.5).num_kept(i.before) for i in report.images
    )
    for group in groups:
        assert group.queries.shape[2] == group.keys.shape[2] == group.attention.shape[1] == group.shape[1]
        assert torch.isfinite(group.queries).all() and bool((group.attention.sum(1) <= 1 + 1e-5).all())


def test_a_question_set_by_hand_stands_nowhere_inside_the_model():
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs("single")
    with patch_model(model, SpyAtLayer(fields=("text_attention",), layer=K)) as handle:
        handle.question(torch.tensor([5, 6]))
        with pytest.raises(PatchError, match="put it into the prompt"):
            model(**inputs)
    model(**inputs)


def test_layer_zero_has_no_layer_before():
    model = FAMILIES["llava"].build()
    with pytest.raises(BudgetError, match="cannot cut at layer 0.*takes 1 to"):
        patch_model(model, SpyAtLayer(fields=("queries",), layer=0))


def test_nothing_is_kept_between_forwards():
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs("single")
    with patch_model(model, SpyAtLayer(fields=("queries",), layer=K)) as handle:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
        assert handle._engine.decoder._seen is None
        with handle.disabled():
            model(**inputs)
            assert handle._engine.decoder._seen is None
