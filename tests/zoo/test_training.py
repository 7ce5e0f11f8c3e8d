"""The training recipe runs: a few seconds of each phase, from nothing to a folder that loads."""

from __future__ import annotations

import pytest
import torch

from tokenprune.zoo.training import language, pictures, tower

TINY = {"window": 7, "batch": 2, "compiled": False}
SECONDS = 1 / 60 / 4


@pytest.mark.slow
def test_every_phase_runs_and_resumes_and_the_result_is_a_stock_model(tmp_path):
    torch.manual_seed(0)
    tower.train(tmp_path, SECONDS, name="tower", **TINY)
    language.train(tmp_path, SECONDS, layers=2, name="language", **TINY)
    options = dict(
        layers=4, tower="tower", language="language", align_minutes=SECONDS, tower_rate=1e-4, **TINY
    )
    pictures.train(tmp_path, SECONDS, name="pictures", journal_every=1, **options)
    first = torch.load(tmp_path / "pictures.pt", weights_only=True)
    assert first["step"] >= 1
    pictures.train(tmp_path, 2 * SECONDS, name="pictures", journal_every=1, **options)
    assert torch.load(tmp_path / "pictures.pt", weights_only=True)["step"] >= first["step"]
    model = pictures.Parts.read(tmp_path / "pictures.pt").assemble()
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert model.config.text_config.num_hidden_layers == 4
    assert (tmp_path / "log.jsonl").read_text().count("pictures") >= 1
