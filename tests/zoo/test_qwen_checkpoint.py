"""The reader that ships: real Hugging Face classes, small, and as good as its card says."""

from __future__ import annotations

import json

import pytest
import torch

from tests.stock import needs_clip_times
from tokenprune.zoo import info, load, path
from tokenprune.zoo.evaluate import SUITES, answers, inputs_of, score

NAME = "tiny-qwen"
FEW = {"documents": 40, "scenes": 90, "clips": 56}
# Three standard errors of that many questions, and a little for rounding.
MARGIN = {"documents": 0.2, "scenes": 0.12, "clips": 0.2}


@pytest.fixture(scope="module")
def loaded():
    return load(NAME)


def test_it_loads_by_the_auto_classes_from_its_folder():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(path(NAME), local_files_only=True)
    processor = AutoProcessor.from_pretrained(path(NAME), local_files_only=True)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert processor.tokenizer.padding_side == "left"


def test_it_is_small_deep_and_has_both_kinds_of_vision_attention(loaded):
    model, _ = loaded
    assert (path(NAME) / "model.safetensors").stat().st_size <= 12 * 2**20
    assert 3e6 <= sum(p.numel() for p in model.parameters()) <= 8e6
    assert model.config.text_config.num_hidden_layers >= 16
    vision = model.config.vision_config
    assert 0 < len(vision.fullatt_block_indexes) < vision.depth and vision.spatial_merge_size == 2
    assert sum(model.config.text_config.rope_parameters["mrope_section"]) == 16


def test_its_card_says_what_it_reaches_and_on_which_rung():
    card = info(NAME)
    assert card["name"] == NAME and card["version"] and card["date"] and card["rung"]
    assert set(card["exact"]) >= {"documents", "scenes", "clips", "documents_blind", "documents_random_0.111"}
    assert 0 <= card["exact"]["documents"]["page_cer"] <= 1
    for name in FEW:
        measured = card["suites"][name]
        samples = SUITES[name].suite(measured["split"], measured["questions"], measured["seed"])
        assert SUITES[name].suite_hash(samples) == measured["hash"]


def test_pruning_costs_on_every_suite():
    exact = info(NAME)["exact"]
    for name in FEW:
        assert exact[f"{name}_random_0.111"]["all"] <= exact[name]["all"] - 0.15
        for kind, share in exact[f"{name}_majority"].items():
            assert exact[f"{name}_blind"][kind] <= share + 0.15, kind


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_it_answers_as_well_as_its_card_says(name, loaded):
    if name == "clips":
        needs_clip_times(loaded[0])
    measured = info(NAME)["suites"][name]
    samples = SUITES[name].suite(measured["split"], measured["questions"], measured["seed"])[: FEW[name]]
    found = score(samples, answers(*loaded, samples))
    assert found["all"] >= info(NAME)["exact"][name]["all"] - MARGIN[name]


@torch.no_grad()
def test_a_page_is_read_alone_as_in_a_batch(loaded):
    model, processor = loaded
    samples = [s for s in SUITES["documents"].suite("test", 20) if s.kind == "value"][:3]
    together = answers(model, processor, samples)
    assert together == [answers(model, processor, [sample])[0] for sample in samples]
    assert inputs_of(processor, samples)["attention_mask"].min() == 0


def test_the_training_log_came_along_without_places():
    lines = (path(NAME) / "training_log.jsonl").read_text().splitlines()
    assert len(lines) > 50 and all("phase" in json.loads(line) for line in lines)
    assert not any("/home" in line or "/work" in line for line in lines)
