"""The report's numbers against counters and the cache's own tensors."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from transformers import (
    CLIPVisionConfig,
    DeepseekV3Config,
    Gemma3TextConfig,
    Gemma4TextConfig,
    Lfm2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
)

from tests.fixed import Fixed, FixedAtLayer
from tests.tiny.base import IMAGE, pixels
from tests.tiny.models import FAMILIES, fixed_mask
from tests.tiny.reference import decoder_layers
from tokenprune import patch_model
from tokenprune.budget import count

REAL = {"vocab_size": 100, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "pad_token_id": 0}
TEXTS = {
    "llama": LlamaConfig(**REAL, num_attention_heads=4),
    "qwen2, grouped": Qwen2Config(**REAL, num_attention_heads=8, num_key_value_heads=2),
    "own head size": LlamaConfig(**REAL, num_attention_heads=4, num_key_value_heads=1, head_dim=128),
    "gemma3, sliding": Gemma3TextConfig(
        **REAL, num_attention_heads=4, num_key_value_heads=2, head_dim=64, sliding_window=4096
    ),
    "lfm2, convolutions": Lfm2Config(
        **REAL, num_attention_heads=4, num_key_value_heads=2, layer_types=["conv", "full_attention"] * 2,
        block_auto_adjust_ff_dim=False,
    ),
    "deepseek, latent and experts": DeepseekV3Config(
        **REAL, num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=64, q_lora_rank=96, qk_nope_head_dim=32,
        qk_rope_head_dim=16, v_head_dim=32, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
        first_k_dense_replace=1, moe_intermediate_size=192,
    ),
    "gemma4, heads by layer": Gemma4TextConfig(
        **REAL, num_attention_heads=4, num_key_value_heads=2, head_dim=32, global_head_dim=64,
        hidden_size_per_layer_input=0, sliding_window=4096, layer_types=["sliding_attention", "full_attention"] * 2,
    ),
}  # fmt: skip


def realistic(text) -> LlavaForConditionalGeneration:
    """196 image tokens, heads of 32 to 128."""
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=112, patch_size=8
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=196)
    return LlavaForConditionalGeneration(config).eval()


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def counted(model, inputs: dict) -> int:
    """FLOPs between the entry of the first decoder layer and the exit of the last."""
    counter, layers = FlopCounterMode(display=False), decoder_layers(model)
    start = layers[0].register_forward_pre_hook(lambda *_: counter.__enter__() and None)
    end = layers[-1].register_forward_hook(lambda *_: counter.__exit__(None, None, None))
    model(**inputs)
    start.remove()
    end.remove()
    return counter.get_total_flops()


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("method", [Fixed(), FixedAtLayer()], ids=lambda m: type(m).__name__)
def test_flops_agree_with_the_counter_of_torch(text, method, attn):
    if attn == "sdpa" and torch.ops.aten._scaled_dot_product_flash_attention_for_cpu not in flop_registry:
        pytest.skip("this torch does not count the attention of processors")
    model = realistic(TEXTS[text])
    model.set_attn_implementation(attn)
    if "experts" in text:
        model.set_experts_implementation("eager")  # the counter does not know grouped products
    ids = torch.tensor([[1, *[IMAGE] * 196, *range(20, 60)]] * 2)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels(2, 3, 112, 112, seed=0)}
    with patch_model(model, method) as handle:
        assert handle.report is None
        pruned = counted(model, inputs)
        assert handle.report.flops == pytest.approx(pruned, rel=0.02)
        with handle.disabled():
            assert handle.report.flops_unpruned == pytest.approx(counted(model, inputs), rel=0.02)
        assert handle.report.flops < 0.8 * handle.report.flops_unpruned


KINDS = [("llava", "batch"), ("qwen2_5_vl", "mixed_batch"), ("qwen3_vl", "video"), ("gemma3", "batch")]
KINDS += [("llava_onevision", "mixed"), ("smolvlm", "tiles_batch")]


@pytest.mark.parametrize("method", [Fixed(), FixedAtLayer()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("name,kind", KINDS)
def test_counts_layers_and_bytes(name, kind, method):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs(kind)
    cut = method.layer if isinstance(method, FixedAtLayer) else 0
    whole = model(**inputs, use_cache=True).past_key_values
    with patch_model(model, method) as handle:
        cache = model(**inputs, use_cache=True).past_key_values
        report = handle.report
    layers = len(decoder_layers(model))
    places = [where for row in family.visual_positions(inputs) for where in row]
    assert [i.before for i in report.images] == list(map(len, places))
    for image in report.images:
        mask = fixed_mask(image.before, image.ordinal)
        assert image.kept == mask.nonzero()[:, 0].tolist() and image.after == len(image.kept)
        assert image.per_layer == [image.before] * cut + [image.after] * (layers - cut)
        assert image.coords.shape == (image.before, 4) and image.owner is None and image.scores is None
    length = inputs["input_ids"].shape[1]
    rows = range(len(inputs["input_ids"]))
    left = [length - sum(i.before - i.after for i in report.images if i.row == r) for r in rows]
    assert report.logical == length
    assert report.physical == [length] * cut + [max(left)] * (layers - cut)
    mean = sum(sum(i.per_layer) / layers for i in report.images) / len(report.images)
    assert report.equivalent_tokens == pytest.approx(mean)
    assert report.keep_share == pytest.approx(mean * len(report.images) / sum(map(len, places)))

    def size(past):
        held = [t for layer in past.layers for t in (layer.keys, layer.values)]
        return sum(t.numel() * t.element_size() for t in held)

    assert (report.kv_bytes, report.kv_bytes_unpruned) == (size(cache), size(whole))
    assert f"{report.before} -> {report.after} visual tokens" in report.summary()


def test_the_report_speaks_of_the_last_prefill_with_images():
    family = FAMILIES["llava"]
    model = family.build()
    with patch_model(model, "flashvlm", keep=0.2) as handle:
        assert handle.report is None
        model.generate(**family.inputs("multi"), max_new_tokens=3, do_sample=False)
        assert (handle.report.before, handle.report.after) == (50, 10)
        model(**family.inputs("text"))
        assert handle.report.before == 50
        model(**family.inputs("single"))
        assert handle.report.before == 25
        image = handle.report.images[0]
        assert image.scores.shape == (25,) and torch.isfinite(image.scores).all()
    assert handle.report.before == 25, "it outlives the patch"


def test_merging_methods_name_the_owners():
    family = FAMILIES["qwen2_5_vl"]
    model, inputs = family.build(), family.inputs("batch")
    with patch_model(model, "pool", keep=0.3) as handle:
        model(**inputs)
        for image in handle.report.images:
            assert image.after == count(0.3, image.before) == len(image.kept)
            assert image.owner.shape == (image.before,)
            assert set(image.owner.tolist()) == set(image.kept)
            assert image.owner[image.kept].tolist() == image.kept
