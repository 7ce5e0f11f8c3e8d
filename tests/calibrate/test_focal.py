import json

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from tests.calibrate.test_replay import alone
from tests.eval.conftest import listing, vlm, write_suite  # noqa: F401  fixtures
from tokenprune import patch_model
from tokenprune.calibrate import calibration_suite, focal_search, plot_search
from tokenprune.chat import load_chat
from tokenprune.cli import app
from tokenprune.errors import BudgetError, InputError, TokenPruneError
from tokenprune.eval import load_suite
from tokenprune.recipe import load_recipe
from tokenprune.zoo import documents
from tokenprune.zoo.splits import is_test
from tokenprune.zoo.vocabulary import HELD_OUT_WORDS

QUICK = {"keep": 0.1, "k_min": 1, "steps": 5, "batch": 2}


@pytest.fixture(scope="module")
def chat(vlm):  # noqa: F811
    return load_chat(str(vlm))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return load_suite(str(write_suite(tmp_path_factory.mktemp("asked") / "suite")))


@pytest.fixture(scope="module")
def found(chat, asked):
    return focal_search(chat, asked, 5, **QUICK)


def test_the_pages_are_never_those_that_are_tested():
    suite = calibration_suite("documents", 12)
    pages = documents.suite("train", 36, 0)
    assert [s.id for s in suite.samples] == sorted(p.id for p in pages)
    assert len({s.group for s in suite.samples}) == 36
    assert suite.samples[0].picture.load().size == {p.id: p for p in pages}[suite.samples[0].id].image.size
    assert not any(is_test(p.page) for p in pages)
    words = {w for p in pages for w in p.page.text.split()}
    assert words and not words & set(HELD_OUT_WORDS)
    tested = {p.page.key() for split in ("test", "held_out") for p in documents.suite(split, 60, 0)}
    assert not tested & {s.group for s in suite.samples}
    assert calibration_suite("scenes", 2).about["split"] == "train"


def test_every_count_has_its_layers_and_its_cost(found):
    assert found.num_layers == 3 and list(found.curve) == [3, 2, 1] == sorted(found.spread, reverse=True)
    assert found.layers(3) == (0, 1, 2) and abs(found.curve[3]) < 1e-6 and abs(found.spread[3]) < 1e-6
    assert set(found.layers(1)) < set(found.layers(2)) < {0, 1, 2}
    assert (*found.order, *found.layers(1)) in {
        (a, b, 3 - a - b) for a in range(3) for b in range(3) if a != b
    }
    assert (
        found.samples == 4 and 4 < found.tokens <= 20 and found.keep == 0.1
    )  # one answers with its end token
    assert found.curve[1] > 1e-3 and found.evaluations == 6
    with pytest.raises(BudgetError, match="1, 2, 3 layers"):
        found.layers(4)


def test_the_curve_is_that_of_plain_generation(chat, asked, found):
    """Each picture's first question alone, its greedy answer forced; of three layers removal tries every pair."""
    pairs, ends = {(0, 1): [], (0, 2): [], (1, 2): []}, chat.model.generation_config.eos_token_id
    for sample in list({s.group: s for s in reversed(asked.samples)}.values()):
        inputs = chat.inputs(sample.picture.load(), sample.question)
        out = chat.model.generate(**inputs, max_new_tokens=6, do_sample=False)
        answer = out[0, inputs["input_ids"].shape[1] :].tolist()
        answer = answer[: answer.index(ends) + 1] if ends in answer else answer
        if len(answer) > 1:
            dense = alone(chat.model, inputs, answer)
            for pair, costs in pairs.items():
                with patch_model(chat.model, "fixation", focal=pair, keep=0.1, k_min=1):
                    costs += (np.exp(dense) * (dense - alone(chat.model, inputs, answer))).sum(-1).tolist()
    means = {pair: np.mean(costs) for pair, costs in pairs.items()}
    assert len(pairs[0, 1]) == found.tokens and found.layers(2) == min(means, key=means.get)
    assert found.curve[2] == pytest.approx(means[found.layers(2)], rel=1e-3)
    assert found.spread[2] == pytest.approx(means[1, 2], rel=1e-3)


def test_the_search_does_not_depend_on_batches(chat, asked, found):
    other = focal_search(chat, asked, 5, **QUICK | {"batch": 5})
    assert other.nested.sets == found.nested.sets and other.tokens == found.tokens
    assert all(other.curve[m] == pytest.approx(found.curve[m], rel=1e-3, abs=1e-6) for m in found.curve)


def test_the_recipe_is_taken_back(chat, found, tmp_path):
    path = found.to_recipe(2).save(tmp_path / "fixation.yaml")
    recipe = load_recipe(path)
    with patch_model(chat.model, recipe=path) as handle:
        method = handle.methods[0]
        assert method.focal_layers(3) == found.layers(2) and (method.keep, method.k_min) == (0.1, 1)
        assert handle.recipe().methods == [("fixation", method.hyper())]
    assert recipe.notes["curve"] == {m: pytest.approx(v, rel=1e-3) for m, v in found.curve.items()}
    assert recipe.notes["order"] == list(found.order) and recipe.notes["samples"] == 4
    assert recipe.model == "toy" and len(recipe.notes["suite"].split()[1]) == 16
    with pytest.raises(BudgetError):
        found.to_recipe(0)


def test_loss_is_of_the_reference_answers(chat, asked):
    """`red` and its end token: one step a sample, and with all layers focal the loss of the dense model."""
    result = focal_search(chat, asked, 5, objective="loss", **QUICK)
    assert result.tokens == 5 and result.answers == "reference"
    red = chat.processor.tokenizer("red", add_special_tokens=False)["input_ids"]
    losses = []
    for sample in list({s.group: s for s in reversed(asked.samples)}.values()):
        inputs = chat.inputs(sample.picture.load(), sample.question)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([red])], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logits = chat.model(**inputs).logits[0, -1]
        losses.append(float(-logits.log_softmax(-1)[chat.model.generation_config.eos_token_id]))
    assert result.curve[3] == pytest.approx(sum(losses) / 5, rel=1e-3)


def test_pictures_that_cannot_be_read_are_passed_over(chat, tmp_path):
    path = write_suite(tmp_path / "s")
    (path.parent / "0.png").write_bytes(b"no")
    assert focal_search(chat, load_suite(str(path)), 5, **QUICK).samples == 3
    for i in range(5):
        (path.parent / f"{i}.png").write_bytes(b"no")
    with pytest.raises(InputError, match="no picture that can be read"):
        focal_search(chat, load_suite(str(path)), 5, **QUICK)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"objective": "accuracy"}, "'kl' or 'loss'"),
        ({"answers": "none"}, "'own' or 'reference'"),
        ({"search": "random"}, "'removal' or 'addition'"),
        ({"steps": 0}, "steps=0"),
        ({"batch": 0}, "batch=0"),
        ({"most": 2}, "addition"),
        ({"search": "addition", "max_run": 2}, "removal"),
        ({"focal": 3}, "leave it out"),
        ({"keep": 0.0}, "keep"),
        ({"heads": "sum"}, "heads"),
    ],
)
def test_what_is_out_of_range_is_refused_before_the_model_runs(chat, asked, options, match, monkeypatch):
    monkeypatch.setattr(chat.model, "generate", None)
    with pytest.raises(TokenPruneError, match=match):
        focal_search(chat, asked, 2, **{**QUICK, **options})


def test_reference_answers_have_to_be_there(chat, tmp_path):
    path = write_suite(tmp_path / "s")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in x.items() if k != "answer"}) + "\n" for x in lines))
    suite = load_suite(str(path))
    assert focal_search(chat, suite, 2, **QUICK).samples == 2
    with pytest.raises(InputError, match="no right answer is known"):
        focal_search(chat, suite, 2, answers="reference", **QUICK)


def test_the_plot_shows_both_curves(found, tmp_path):
    plot_search(found, 2, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def command(vlm, listing, out, *more):  # noqa: F811
    return CliRunner().invoke(
        app,
        ["calibrate", "focal", str(vlm), "--suite", str(listing), "--samples", "3", "--keep", "10%", "--k-min", "1",
         "--steps", "4", "--out", str(out), *more],
    )  # fmt: skip


def test_the_command_writes_a_recipe_that_works(vlm, listing, tmp_path):  # noqa: F811
    result = command(vlm, listing, tmp_path / "r", "--focal", "2")
    assert result.exit_code == 0, result.output
    assert "in the recipe" in result.stdout and "spread evenly" in result.stdout
    text = (tmp_path / "r/fixation.yaml").read_text()
    recipe = yaml.safe_load(text)
    assert recipe["methods"][0]["name"] == "fixation" and len(recipe["methods"][0]["focal"]) == 2
    assert sorted(recipe["notes"]["curve"]) == [1, 2, 3] and str(tmp_path) not in text
    assert (tmp_path / "r/fixation.png").stat().st_size > 0
    chat = load_chat(str(vlm))
    with patch_model(chat.model, recipe=tmp_path / "r/fixation.yaml") as handle:
        sample = load_suite(str(listing)).samples[0]
        chat.answer(chat.inputs(sample.picture.load(), sample.question), 3)
        assert handle.report.fixation.focal == recipe["methods"][0]["focal"]


def test_the_command_with_other_searches(vlm, listing, tmp_path):  # noqa: F811
    result = command(vlm, listing, tmp_path / "a", "--focal", "1", "--search", "addition")
    assert result.exit_code == 0, result.output
    assert list(yaml.safe_load((tmp_path / "a/fixation.yaml").read_text())["notes"]["curve"]) == [1]
    result = command(vlm, listing, tmp_path / "m", "--focal", "1", "--max-run", "1", "--objective", "loss")
    assert result.exit_code == 0, result.output
    methods = yaml.safe_load((tmp_path / "m/fixation.yaml").read_text())["methods"]
    kept = set(methods[0]["focal"])
    assert all({k, k + 1} & kept for k in (0, 1))


def test_the_command_says_what_is_wrong(vlm, listing, tmp_path):  # noqa: F811
    for more, message in (
        (("--focal", "9"), "3 layers"),
        (("--keep", "0.5,0.2"), "one share"),
        (("--objective", "speed"), "'kl' or 'loss'"),
    ):
        result = command(vlm, listing, tmp_path / "r", *more)
        assert result.exit_code == 2 and message in result.output, result.output
    assert not (tmp_path / "r").exists()
