"""Models as they are served: other number types, quantised linears, weights moved in and out by accelerate."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.fixed import AllTrue, Fixed, FixedAtLayer
from tests.tiny.models import FAMILIES, dropped_from
from tests.tiny.reference import masked_conversation, reference_prefill
from tokenprune import get_method, patch_model

METHODS = {0: Fixed, 2: FixedAtLayer}
GREEDY = {"max_new_tokens": 4, "do_sample": False}
NAMES = ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3"]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def worst(got: Tensor, wanted: Tensor, where: Tensor) -> float:
    return float((got.float() - wanted.float()).abs().amax(-1)[where].max() / wanted.abs().max())


class Int8Linear(nn.Module):
    """Weights as rows of int8 with a scale: no `weight`, no floating parameter, and not an `nn.Linear`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("rows", (linear.weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.rows.to(x.dtype) * self.scale, self.bias)


def replace_linears(root: nn.Module) -> nn.Module:
    for name, child in list(root.named_children()):
        setattr(root, name, Int8Linear(child)) if type(child) is nn.Linear else replace_linears(child)
    return root


@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_quantised_weights_of_a_foreign_class(name, k):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("batch")
    replace_linears(model.model.language_model)
    dropped = dropped_from(family, inputs)
    kept = inputs["attention_mask"].bool() & ~dropped
    plain = model(**inputs).logits
    wanted = reference_prefill(model, inputs, dropped, k)
    with patch_model(model, AllTrue()):
        assert torch.equal(model(**inputs).logits, plain)
    with patch_model(model, METHODS[k]()):
        assert worst(model(**inputs).logits, wanted, kept) < 1e-4
    assert worst(plain, wanted, kept) > 1e-3


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_dynamic_int8(name):
    """Its activations are scaled by the largest of a call, so fewer tokens may round otherwise: no further, though."""
    quantization = pytest.importorskip("torch.ao.quantization")
    if not hasattr(quantization, "quantize_dynamic"):
        pytest.skip("this torch has no dynamic quantisation any more")
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("batch")
    dropped = dropped_from(family, inputs)
    kept = inputs["attention_mask"].bool() & ~dropped
    exact = reference_prefill(model, inputs, dropped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    plain = quantised(**inputs).logits
    with patch_model(quantised, AllTrue()):
        assert torch.equal(quantised(**inputs).logits, plain)
    rounding = worst(reference_prefill(quantised, inputs, dropped), exact, kept)
    with patch_model(quantised, Fixed()):
        assert worst(quantised(**inputs).logits, exact, kept) < 2 * rounding
        quantised.generate(**inputs, **GREEDY)
    assert torch.equal(quantised(**inputs).logits, plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_rounds_no_more_than_the_masked_model(name, k, dtype):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("batch")
    dropped = dropped_from(family, inputs)
    kept = inputs["attention_mask"].bool() & ~dropped
    exact = reference_prefill(model, inputs, dropped, k)
    half = model.to(dtype)
    small = {n: v.to(dtype) if v.is_floating_point() else v for n, v in inputs.items()}
    rounding = worst(reference_prefill(half, small, dropped, k), exact, kept)
    plain = half(**small).logits
    with patch_model(half, METHODS[k]()):
        got = half(**small).logits
        half.generate(**small, **GREEDY)
    assert got.dtype == dtype and worst(got, exact, kept) < 2 * rounding < 0.5 * worst(plain, exact, kept)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["flashvlm", "divprune", "fastv", "entropyprune", "fixation", "tome"])
def test_methods_run_in_half_precision(method, dtype):
    family = FAMILIES["qwen2_5_vl"]
    model, inputs = family.build().to(dtype), family.inputs("batch")
    small = {n: v.to(dtype) if v.is_floating_point() else v for n, v in inputs.items()}
    with patch_model(model, get_method(method, keep=0.6)) as handle:
        out = model.generate(**small, **GREEDY, output_logits=True, return_dict_in_generate=True)
        assert handle.report.images
    assert all(torch.isfinite(step.float()).all() for step in out.logits)


# -- accelerate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["accelerate", "patch"])
@pytest.mark.parametrize("k", METHODS)
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_weights_that_come_and_go(name, k, first):
    """`cpu_offload` keeps weights on the meta device between calls; its hooks and ours may come in either order."""
    accelerate = pytest.importorskip("accelerate")
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("batch")
    plain = model.generate(**inputs, **GREEDY)
    with masked_conversation(model, dropped_from(family, inputs), k):
        wanted = model.generate(**inputs, **GREEDY)
    if first == "accelerate":
        accelerate.cpu_offload(model, execution_device="cpu")
        handle = patch_model(model, METHODS[k]())
    else:
        handle = patch_model(model, METHODS[k]())
        accelerate.cpu_offload(model, execution_device="cpu")
    assert all(p.device.type == "meta" for p in model.model.language_model.layers.parameters())
    assert torch.equal(model.generate(**inputs, **GREEDY), wanted)
    handle.remove()
    assert torch.equal(model.generate(**inputs, **GREEDY), plain)


@pytest.mark.parametrize("beams", [1, 3])
def test_what_the_tower_told_survives_accelerate(beams):
    """It rebuilds the encoded images on their way, and what was noted on them is lost."""
    accelerate = pytest.importorskip("accelerate")
    family = FAMILIES["qwen2_5_vl"]
    model, inputs = family.build(), family.inputs("batch")
    options = GREEDY | {"num_beams": beams}
    with patch_model(model, "visionzip", keep=0.4) as handle:
        wanted = model.generate(**inputs, **options)
        images = [(i.row, i.grid, list(i.kept)) for i in handle.report.images]
    accelerate.cpu_offload(model, execution_device="cpu")
    with patch_model(model, "visionzip", keep=0.4) as handle:
        assert torch.equal(model.generate(**inputs, **options), wanted)
        assert [(i.row, i.grid, list(i.kept)) for i in handle.report.images] == images


def test_a_device_map_with_layers_on_disk(tmp_path):
    pytest.importorskip("accelerate")
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.inputs("batch")
    with masked_conversation(model, dropped_from(family, inputs), 2):
        wanted = model.generate(**inputs, **GREEDY)
    model.save_pretrained(tmp_path / "model")
    names = [
        "model.vision_tower",
        "model.multi_modal_projector",
        "lm_head",
        "model.language_model.embed_tokens",
    ]
    names += ["model.language_model.norm", "model.language_model.rotary_emb"]
    device_map: dict[str, str] = dict.fromkeys(names, "cpu")
    device_map |= {f"model.language_model.layers.{i}": "disk" if i in (1, 3) else "cpu" for i in range(4)}
    loaded = type(model).from_pretrained(
        tmp_path / "model",
        device_map=device_map,
        offload_folder=tmp_path / "disk",
        attn_implementation="sdpa",
    )
    assert loaded.model.language_model.layers[1].mlp.up_proj.weight.device.type == "meta"
    with patch_model(loaded, FixedAtLayer()):
        assert torch.equal(loaded.generate(**inputs, **GREEDY), wanted)


def test_hooks_never_look_at_the_class_of_a_linear_layer():
    hooks = Path(__file__).parents[2] / "tokenprune" / "hooks"
    for path in sorted(hooks.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [getattr(node, "attr", None), getattr(node, "id", None), getattr(node, "value", None)]
            assert not any(isinstance(n, str) and n.endswith("Linear") for n in names), (
                f"{path.name}:{node.lineno}"
            )
