"""The recipe of tiny-qwen runs: a few steps of each phase, from nothing to a folder that loads."""

from __future__ import annotations

import inspect

import pytest
import torch

from tokenprune.zoo import evaluate, train
from tokenprune.zoo.recipes import RECIPES
from tokenprune.zoo.training import cells, common, sight, words

SECONDS = 1 / 60 / 4


@pytest.mark.slow
def test_every_phase_runs_and_resumes_and_the_result_is_a_stock_model(tmp_path):
    cells.train(tmp_path, SECONDS, pages=2, scenes=1)
    words.train(tmp_path, SECONDS, layers=2, tokens=300, scenes=1, clips=0.3, whole_scenes=0.3)
    words.train(tmp_path, SECONDS, name="deep", start="words", layers=4, tokens=300, scenes=0)
    sight.align(tmp_path, SECONDS, layers=4, words="deep", shown=200, journal_every=1, fitted=2)
    share = {"tokens": 500, "journal_every": 1}
    sight.train(tmp_path, SECONDS, start="align", clips=0.5, **share)
    first = common.load(tmp_path / "sight.pt")
    assert first is not None and first["step"] >= 1
    sight.train(tmp_path, 2 * SECONDS, start="align", **share)
    again = common.load(tmp_path / "sight.pt")
    assert again is not None and again["step"] >= first["step"]
    sight.train(tmp_path, SECONDS, name="together", start="sight", tower_rate=1e-4, **share)
    model = sight.Parts.read(tmp_path / "together.pt").assemble()
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert model.config.text_config.num_hidden_layers == 4
    before = sight.Parts.read(tmp_path / "sight.pt").tower.vision.merger.mlp[0].weight
    assert not torch.equal(model.model.visual.merger.mlp[0].weight, before)
    assert (tmp_path / "log.jsonl").read_text().count("sight") >= 1


@pytest.mark.parametrize("name", RECIPES)
def test_every_phase_of_a_recipe_has_a_trainer_with_its_options_and_follows_what_it_starts_from(name):
    done: list[str] = []
    for phase in RECIPES[name].phases:
        known = inspect.signature(train._trainer(phase.run)).parameters
        assert set(phase.options) <= set(known), phase.name
        earlier = {
            phase.options[key] for key in ("start", "tower", "language", "words") if key in phase.options
        }
        assert earlier <= set(done), phase.name
        done.append(phase.name)
    assert {row.suite for row in RECIPES[name].rows.values()} <= set(evaluate.SUITES)
