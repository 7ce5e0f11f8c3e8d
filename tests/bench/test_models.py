"""Architectures of real size by their shapes, and the bench end to end on the same ones shrunk. Nothing of times."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from tokenprune.bench import models, run
from tokenprune.bench.architectures import ARCHITECTURES, architecture, build, cut, parameters
from tokenprune.bench.pictures import prompt, visual
from tokenprune.bench.plots import models_figure
from tokenprune.bench.tables import markdown, tables
from tokenprune.cli import app
from tokenprune.errors import InputError, UnknownNameError

PUBLISHED = {  # parameters of the checkpoints
    "llava-1.5-7b": 7_063_427_072,
    "llava-next-7b": 7_063_431_168,
    "llava-onevision-7b": 8_029_890_080,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen3-vl-8b": 8_767_123_696,
    "internvl3-8b": 7_944_373_760,
}
TOKENS = {  # of the default picture
    "llava-1.5-7b": 576,
    "llava-next-7b": 576 + 48 * 49,
    "llava-onevision-7b": 729 + 54 * 55,
    "qwen2.5-vl-3b": 36**2,
    "qwen2.5-vl-7b": 36**2,
    "qwen3-vl-8b": 32**2,
    "internvl3-8b": 5 * 256,
}
NARROW = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "vocab_size": 1100}


def shrunk(name: str):
    """The architecture with its own picture's shape, three layers deep and very narrow."""
    one = architecture(name)
    text = {**one.config["text_config"], **NARROW, "num_hidden_layers": 3}
    text |= {"num_key_value_heads": 2, "max_position_embeddings": 4096}
    vision = {**one.config["vision_config"], "hidden_size": 32, "intermediate_size": 48}
    heads = "num_heads" if "num_heads" in vision else "num_attention_heads"
    vision |= {heads: 2, "depth" if "depth" in vision else "num_hidden_layers": 4}
    if "head_dim" in text:
        text["head_dim"] = 16
    if "mrope_section" in text.get("rope_parameters", {}):
        text["rope_parameters"] = {**text["rope_parameters"], "mrope_section": [2, 3, 3]}
    if "out_hidden_size" in vision:
        vision["out_hidden_size"] = 64
    ids = {"image_token_id": 5, "vision_start_token_id": 6, "vision_end_token_id": 7, "video_token_id": 8}
    if "image_token_index" in one.config:
        ids = {"image_token_index": 5, "video_token_index": 8}
    config = {**one.config, **{k: v for k, v in ids.items() if k in one.config or one.picture == "patches"}}
    if one.name.startswith("internvl"):
        config["image_token_id"] = 5
    return replace(one, config={**config, "text_config": text, "vision_config": vision})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shapes_are_those_of_the_checkpoint(name):
    one = architecture(name)
    model = build(one, device="meta")
    assert parameters(model) == PUBLISHED[name]
    text = model.config.get_text_config()
    assert len(model.model.language_model.layers) == one.layers == text.num_hidden_layers
    assert model.dtype == torch.bfloat16 and not any(p.requires_grad for p in model.parameters())
    assert visual(prompt(one, model.config), model.config) == TOKENS[name]


@pytest.mark.parametrize("name", ["llava-1.5-7b", "qwen2.5-vl-7b", "qwen3-vl-8b"])
def test_a_cut_model_is_as_wide_and_has_so_many_layers(name):
    one = architecture(name)
    whole, less = build(one, device="meta"), build(one, layers=2, tower_layers=3, device="meta")
    assert len(less.model.language_model.layers) == 2
    each = sum(math.prod(p.shape) for p in whole.model.language_model.layers[0].parameters())
    tower = parameters(whole.model.vision_tower if "llava" in name else whole.model.visual)
    cut_tower = parameters(less.model.vision_tower if "llava" in name else less.model.visual)
    assert parameters(whole) - parameters(less) == (one.layers - 2) * each + tower - cut_tower
    assert cut_tower < tower / 4
    with pytest.raises(InputError, match=f"has {one.layers} layers"):
        cut(one, layers=one.layers + 1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_its_prompt_is_understood(name):
    """The model itself refuses a wrong number of placeholders."""
    one = shrunk(name)
    model = build(one, dtype=torch.float32)
    step = {
        "llava-next-7b": 672,
        "qwen2.5-vl-3b": 56,
        "qwen2.5-vl-7b": 84,
        "qwen3-vl-8b": 96,
        "internvl3-8b": 448,
    }
    side = step.get(name, model.config.vision_config.image_size if "llava" in name else None)
    inputs = prompt(one, model.config, side=side, text=7)
    with torch.no_grad():
        logits = model(**inputs, logits_to_keep=1).logits
    assert logits.isfinite().all() and logits.std() > 0
    assert inputs["input_ids"].shape[1] == visual(inputs, model.config) + 7 + 2 * (
        one.picture in ("patches", "tiles")
    )
    with pytest.raises(InputError, match="a side of 101 pixels"):
        prompt(one, model.config, side=101)


@pytest.fixture
def tiny(monkeypatch):
    """`--model qwen2.5-vl-7b` is a narrow one."""
    one = shrunk("qwen2.5-vl-7b")
    monkeypatch.setattr(run, "architecture", lambda name: one if name == one.name else architecture(name))
    return one


def test_measures_writes_and_draws(tiny, tmp_path):
    out = tmp_path / "deep/models.json"
    words = [
        "bench",
        "--model",
        tiny.name,
        "--layers",
        "2",
        "--tower-layers",
        "2",
        "--side",
        "112",
        "--pairs",
        "2",
    ]
    words += ["--method", "uniform", "--method", "fastv", "--dtype", "float32"]
    done = CliRunner().invoke(app, [*words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    noise, uniform, fastv = found["models"]
    assert (noise["method"], noise["keep"], noise["layers"], noise["of_layers"]) == (
        "unpatched again",
        None,
        2,
        3,
    )
    assert uniform["visual"] == 16 and uniform["kept"] == 4 and noise["kept"] == 16
    assert set(uniform["ratios"]) == set(uniform["ideal"]) == {"first", "prompt", "token"}
    assert (
        uniform["ratios"]["first"]["pairs"] == 2 and 0 < uniform["scoring"] < 1 and 0 < uniform["tower"] < 1
    )
    stored = 2 * 2 * 2 * 16 * 4  # keys and values of 2 heads of 16 numbers in float32, in 2 layers
    assert uniform["kv_bytes_unpruned"] == stored * (16 + uniform["text"])
    assert uniform["kv_bytes_unpruned"] - uniform["kv_bytes"] == stored * 12
    assert uniform["flops"] < uniform["flops_unpruned"] and uniform["peak_bytes"] > 0
    assert "layer" in fastv["note"] and not fastv["ratios"]  # cuts at 2 of 2 layers: refused, and said
    page = out.with_suffix(".md").read_text()
    assert "| uniform | 0.25 | 4 |" in page and "fastv: " in page and "2 of 3 decoder layers" in page
    assert (out.parent / "models-models.png").stat().st_size > 5000


def test_methods_inside_the_model_have_no_ideal(tiny):
    result = run.bench_models(
        [tiny.name],
        pairs=1,
        methods=("fastv",),
        keep=0.8,
        layers=3,
        tower_layers=1,
        side=112,
        dtype=torch.float32,
    )
    noise, fastv = result.models
    assert (
        fastv.ideal == {}
        and fastv.ratios["token"].pairs == 2
        and fastv.equivalent == pytest.approx(12.8, abs=0.7)
    )
    assert noise.flops == noise.flops_unpruned > fastv.flops
    assert [t.title.split(":")[0] for t in tables(result)] == [tiny.name] and "fastv" in markdown(result)
    assert len(models_figure(result.models).axes) == 1 and models_figure([noise]) is None


def test_unknown_model_and_both_kinds():
    with pytest.raises(UnknownNameError, match=r"qwen2\.5-vl-7b"):
        architecture("qwen2.5-vl-9b")
    done = CliRunner().invoke(app, ["bench", "--model", "llava-1.5-7b", "--only", "small-1k"])
    assert done.exit_code == 2 and "one of them" in done.stderr
    done = CliRunner().invoke(app, ["bench", "--model", "llava-1.5-7b", "--dtype", "int8"])
    assert done.exit_code == 2 and "--dtype int8" in done.stderr
    done = CliRunner().invoke(app, ["bench", "--kernels", "--device", "tpu"])
    assert done.exit_code == 2 and "cpu or cuda" in done.stderr
    assert models.METHODS == ("uniform", "flashvlm")
