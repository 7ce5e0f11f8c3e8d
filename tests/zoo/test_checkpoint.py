"""The checkpoint that ships: real Hugging Face classes, small, and as good as its card says."""

from __future__ import annotations

import json

import pytest
import torch

from tokenprune.zoo import info, list_models, load, path
from tokenprune.zoo.evaluate import answers, prompt_of, score
from tokenprune.zoo.scenes import suite, suite_hash

NAME = "tiny-llava"
MARGIN = 0.05  # three standard errors of 225 questions answered right 93 times in a hundred


def test_it_is_listed_with_its_card():
    assert NAME in list_models()
    card = info(NAME)
    assert card["name"] == NAME and card["version"]
    assert set(card["exact"]) >= {"test", "held_out", "blind", "random_0.111", "majority"}
    with pytest.raises(KeyError, match="tiny-llava"):
        path("tiny-lava")


def test_it_loads_by_the_auto_classes_from_its_folder():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(path(NAME), local_files_only=True)
    processor = AutoProcessor.from_pretrained(path(NAME), local_files_only=True)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert type(processor).__name__ == "LlavaProcessor"
    assert model.config.text_config.num_hidden_layers >= 16
    assert processor.tokenizer.padding_side == "left"
    size = (path(NAME) / "model.safetensors").stat().st_size
    assert size <= 12 * 2**20
    assert 3e6 <= sum(p.numel() for p in model.parameters()) <= 8e6


def test_the_prompt_puts_196_visual_tokens_before_the_question():
    model, processor = load(NAME)
    sample = suite("test", 9, seed=3)[0]
    prompt = prompt_of(processor, sample.question)
    assert prompt.index("<image>") < prompt.index(sample.question) < prompt.index("ASSISTANT:")
    ids = processor(images=sample.image, text=prompt, return_tensors="pt")["input_ids"]
    assert int((ids == model.config.image_token_id).sum()) == 196


def test_the_card_names_the_suite_it_was_measured_on():
    measured = info(NAME)["suites"]["test"]
    assert measured["questions"] >= 2000
    assert suite_hash(suite("test", measured["questions"], measured["seed"])) == measured["hash"]


def test_the_suite_tells_methods_apart():
    """Blind answers stay near each kind's majority answer, and a random ninth of the tokens costs a lot."""
    exact = info(NAME)["exact"]
    for kind, share in exact["majority"].items():
        assert exact["blind"][kind] <= share + 0.10, kind
    assert exact["random_0.111"]["all"] <= exact["test"]["all"] - 0.15


@pytest.mark.slow
def test_it_answers_as_well_as_its_card_says():
    model, processor = load(NAME)
    measured = info(NAME)["suites"]["test"]
    samples = suite("test", measured["questions"], measured["seed"])[::10]
    found = score(samples, answers(model, processor, samples))
    assert found["all"] >= info(NAME)["exact"]["test"]["all"] - MARGIN


def test_half_precision_answers_like_single():
    model, processor = load(NAME, dtype=torch.bfloat16)
    single, _ = load(NAME)
    samples = suite("test", 27, seed=5)
    a, b = (answers(m, processor, samples) for m in (model, single))
    assert sum(x == y for x, y in zip(a, b)) >= 24


def test_the_training_log_came_along_without_places():
    lines = (path(NAME) / "training_log.jsonl").read_text().splitlines()
    assert len(lines) > 50 and all("phase" in json.loads(line) for line in lines)
    assert not any("/home" in line or "/work" in line for line in lines)
