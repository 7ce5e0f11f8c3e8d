import math

import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner

from tests.eval.conftest import listing, vlm, write_suite  # noqa: F401  fixtures
from tokenprune import patch_model
from tokenprune.calibrate import entropy_curve
from tokenprune.chat import load_chat
from tokenprune.cli import app
from tokenprune.errors import InputError
from tokenprune.eval import load_suite


@pytest.fixture(scope="module")
def tiny():
    return load_chat("tiny-llava")


@pytest.fixture(scope="module")
def train():
    return load_suite({"name": "scenes", "split": "train", "n": 24})


def by_hand(chat, inputs) -> list[float]:
    """Equation 1 in float64: projections seen by hooks, transformers' own rotary table, the C x C covariance."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    text = chat.model.model.language_model
    config, seen = text.config, {}

    def keep(place, value):
        seen[place] = value

    hooks = []
    for k, layer in enumerate(text.layers):
        hooks.append(layer.self_attn.q_proj.register_forward_hook(lambda m, a, out, k=k: keep(k, out)))
        hooks.append(
            layer.register_forward_pre_hook(
                lambda m, a, kw, k=k: keep(("rope", k), kw["position_embeddings"]), with_kwargs=True
            )
        )
    with torch.no_grad():
        chat.model(**inputs)
    for hook in hooks:
        hook.remove()
    visual = inputs["input_ids"][0] == chat.model.config.image_token_id
    out = []
    for k in range(len(text.layers)):
        q = seen[k].unflatten(-1, (config.num_attention_heads, -1)).transpose(1, 2)
        q, _ = apply_rotary_pos_emb(q, q, *seen["rope", k])
        x = q[0].transpose(0, 1)[visual].flatten(1).double()
        x = x - x.mean(0)
        x = x / x.norm(dim=1, keepdim=True)
        sigma = torch.linalg.eigvalsh(x.T @ x / len(x)).clamp(min=1e-15)
        out.append(float(-(sigma * sigma.log()).sum()))
    return out


def test_the_curve_is_the_formula(tiny, train):
    first = {}
    for sample in train.samples:
        first.setdefault(sample.group, sample)
    asked = list(first.values())[:3]
    curves = [by_hand(tiny, tiny.inputs(s.picture.load(), s.question)) for s in asked]
    found = entropy_curve(tiny, train, samples=3)
    assert found.samples == 3 and len(found.mean) == 16
    for layer, values in enumerate(zip(*curves)):
        assert found.mean[layer] == pytest.approx(sum(values) / 3, abs=1e-3)
    drops = [found.mean[i] - found.mean[i + 1] for i in range(math.ceil(16 / 3))]
    assert found.layer == 1 + drops.index(max(drops))


def test_another_order_of_layers_has_another_answer(tiny, train):
    """The rule reads the model: with its layers permuted, the collapse is found elsewhere."""
    before = entropy_curve(tiny, train, samples=4)
    text = tiny.model.model.language_model
    order = [2, 3, 4, 0, 1, *range(5, 16)]
    own = text.layers
    text.layers = nn.ModuleList([own[i] for i in order])
    try:
        after = entropy_curve(tiny, train, samples=4)
    finally:
        text.layers = own
    assert before.layer == 1 and after.layer != before.layer


def test_keys_have_a_curve_of_their_own_and_nothing_stays_tapped(tiny, train):
    queries, keys = (entropy_curve(tiny, train, samples=2, states=s) for s in ("queries", "keys"))
    assert queries.mean != keys.mean and all(math.isfinite(v) and v > 0 for v in keys.mean)
    for module in tiny.model.modules():
        assert "_tokenprune_taps" not in module.__dict__
    with pytest.raises(InputError, match="'queries' or 'keys'"):
        entropy_curve(tiny, train, states="values")


def test_pictures_that_cannot_be_read_are_passed_over(tiny, tmp_path):
    path = write_suite(tmp_path / "s")
    for i in range(1, 5):
        (path.parent / f"{i}.png").write_bytes(b"no")
    with pytest.raises(InputError, match="1 pictures that can be read"):
        entropy_curve(tiny, load_suite(str(path)))


def test_the_command_writes_a_recipe_that_works(vlm, listing, tmp_path):  # noqa: F811
    result = CliRunner().invoke(
        app,
        [
            "calibrate",
            "ecl",
            str(vlm),
            "--suite",
            str(listing),
            "--samples",
            "3",
            "--out",
            str(tmp_path / "r"),
        ],
    )
    assert result.exit_code == 0, result.output
    recipe = yaml.safe_load((tmp_path / "r/entropyprune.yaml").read_text())
    assert recipe["methods"][0]["name"] == "entropyprune" and len(recipe["notes"]["curve"]) == 3
    assert (tmp_path / "r/entropyprune.png").stat().st_size > 0
    assert str(tmp_path) not in (tmp_path / "r/entropyprune.yaml").read_text()
    chat = load_chat(str(vlm))
    recipe["methods"][0]["keep"] = 0.9
    (tmp_path / "r/entropyprune.yaml").write_text(yaml.safe_dump(recipe))
    with patch_model(chat.model, recipe=tmp_path / "r/entropyprune.yaml") as handle:
        assert handle.methods[0].layer == recipe["methods"][0]["layer"]
        sample = load_suite(str(listing)).samples[0]
        chat.answer(chat.inputs(sample.picture.load(), sample.question), 2)
        assert handle.report.images[0].per_layer[0] == 16
