"""tiny-qwen's parts and training shortcuts say the same as the stock model, its processor and its prompt."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from tests.stock import needs_clip_times
from tokenprune.zoo import clips, documents, scenes, typesetting
from tokenprune.zoo.build_qwen import (
    CELL,
    IMAGE,
    MARKS,
    SPECIAL,
    VIDEO,
    build_processor,
    build_tokenizer,
    new_model,
    vocabulary,
)
from tokenprune.zoo.evaluate import SUITES, answers, inputs_of, prompt_of, score
from tokenprune.zoo.training import cells, lessons, reading
from tokenprune.zoo.training.slots import IGNORE

MODULES = {"documents": documents, "scenes": scenes, "clips": clips}


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def model():
    return new_model(2).eval()


@torch.no_grad()
@pytest.mark.parametrize("grid", [(4, 12), (6, 9)])
def test_the_batched_tower_is_the_stock_tower(grid, processor):
    torch.manual_seed(0)
    rng = random.Random(0)
    tower = cells.Tower()
    pictures = [typesetting.render(cells.training_page(rng, *grid)) for _ in range(2)]
    stock = processor.image_processor(pictures, return_tensors="pt")
    seen = tower.vision(stock["pixel_values"], grid_thw=stock["image_grid_thw"]).pooler_output
    mine = tower(cells.patches(pictures), *grid)
    torch.testing.assert_close(mine.flatten(0, 1), seen, atol=1e-4, rtol=1e-4)


def test_frame_pairs_are_those_of_the_video_processor(processor):
    frames = clips.suite("train", 1)[0].frames
    stack = torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).permute(0, 3, 1, 2)
    stock = processor.video_processor([stack], return_tensors="pt", do_sample_frames=False)
    torch.testing.assert_close(cells.frame_pairs(frames).flatten(0, 1), stock["pixel_values_videos"])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["page", "clip"])
def test_each_slot_equals_the_stock_model_on_that_question_alone(kind, model):
    rng, encoder = random.Random(0), reading.Encoder()
    language = model.model.language_model
    if kind == "clip":
        needs_clip_times(model)
    if kind == "page":
        lesson = lessons.page_lesson(rng, encoder, 2, (1, 6, 17), whole=False)
        image, grids = IMAGE, {"image_grid_thw": torch.tensor([[1, 12, 34]])}
    else:
        lesson = lessons.clip_lesson(rng, encoder, 2)
        image = VIDEO
        grids = {"video_grid_thw": torch.tensor([[8, 16, 16]]), "second_per_grid_ts": torch.tensor([0.5])}
    torch.manual_seed(0)
    visual = reading.CellWords(128)(lesson.labels, language.embed_tokens.weight)
    hidden, _ = reading.Decoder(language)(visual, lesson.grid, lesson.slots)
    table = vocabulary()
    start = torch.tensor([table[token] for token in reading.PREFIX])
    for row in range(2):
        for slot in range(lesson.slots.inputs.shape[1]):
            holders = torch.full((visual.shape[1],), table[image])
            ids = torch.cat((start, holders, lesson.slots.inputs[row, slot]))[None]
            types = (ids == table[IMAGE]).int() + 2 * (ids == table[VIDEO]).int()
            places, _ = model.model.get_rope_index(ids, types, **grids)
            inputs = language.embed_tokens(ids)
            inputs[0, len(start) : len(start) + len(holders)] = visual[row]
            alone = language(inputs_embeds=inputs, position_ids=places).last_hidden_state[0]
            stock = alone[len(start) + len(holders) :]
            torch.testing.assert_close(hidden[row, slot], stock, atol=1e-3, rtol=1e-3)


def test_targets_are_the_answer_and_its_end_and_nothing_else():
    lesson = lessons.page_lesson(random.Random(1), reading.Encoder(), 3, (1, 7, 16), whole=True)
    tokenizer = build_tokenizer()
    for row in lesson.slots.targets[:, 0]:
        answer = row[row != IGNORE].tolist()
        assert answer[-1] == tokenizer.eos_token_id
        assert len(tokenizer.decode(answer[:-1]).split("\n")) >= 2


@torch.no_grad()
def test_growing_shares_out_what_a_layer_adds():
    torch.manual_seed(0)
    model = reading.new_text_model(2)
    deep = reading.grow(model, 6)
    for i, layer in enumerate(deep.layers):
        source = model.layers[i // 3]
        assert torch.equal(layer.mlp.up_proj.weight, source.mlp.up_proj.weight)
        torch.testing.assert_close(3 * layer.mlp.down_proj.weight, source.mlp.down_proj.weight)


def test_the_decoder_starts_from_tiny_llava():
    from tokenprune.zoo import load

    donor, processor = load("tiny-llava")
    mine = reading.from_llava()
    assert len(mine.layers) == 16
    theirs = donor.model.language_model
    assert torch.equal(mine.layers[3].mlp.up_proj.weight, theirs.layers[3].mlp.up_proj.weight)
    red = processor.tokenizer.convert_tokens_to_ids(" red")
    assert torch.equal(mine.embed_tokens.weight[vocabulary()[" red"]], theirs.embed_tokens.weight[red])


@pytest.mark.parametrize("text", [
    "TEA $2.50\nMILK 1.20", "A7-31 12/05 9:30 15%", "blue star", "top left", "3", "yes", "QUEEN",
])  # fmt: skip
def test_answers_survive_the_round_trip(text):
    tokenizer = build_tokenizer()
    ids = tokenizer(f"{text}<|im_end|>", add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def test_every_question_of_every_suite_is_spelt_with_known_tokens():
    tokenizer = build_tokenizer()
    for module in MODULES.values():
        for sample in module.suite("test", 70) + module.suite("held_out", 35):
            ids = tokenizer(sample.question + "\n" + sample.answer).input_ids
            assert tokenizer.unk_token_id not in ids, sample.question


def test_special_tokens_are_the_real_ones_and_each_has_one_id():
    tokenizer = build_tokenizer()
    for i, token in enumerate(SPECIAL):
        assert tokenizer(token, add_special_tokens=False).input_ids == [i]
    assert {"<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", IMAGE, VIDEO} < set(SPECIAL)
    assert len(set(MARKS)) == len(MARKS)


@pytest.mark.parametrize("name", MODULES)
def test_the_processor_gives_one_token_a_cell(name, processor, model):
    samples = MODULES[name].suite("test", 7, seed=3)
    inputs = inputs_of(processor, samples)
    medium, token = ("video", VIDEO) if name == "clips" else ("image", IMAGE)
    prompt = prompt_of(processor, samples[0].question, medium)
    assert prompt.index(token) < prompt.index(samples[0].question) < prompt.index("assistant")
    counts = (inputs["input_ids"] == vocabulary()[token]).sum(-1).tolist()
    for sample, count in zip(samples, counts):
        if name == "clips":
            assert count == len(sample.frames) // 2 * 64
        else:
            width, height = sample.image.size
            assert count == width * height // CELL**2
    if name == "clips":
        assert inputs["second_per_grid_ts"] == pytest.approx([0.5] * 7)
    text = processor.batch_decode(inputs["input_ids"], skip_special_tokens=True)[0]
    assert samples[0].question in text


@pytest.mark.parametrize("name", MODULES)
def test_answers_and_scores_come_for_every_suite(name, processor, model):
    samples = SUITES[name].suite("test", 7, seed=4)
    model.generation_config.max_new_tokens = 2
    for keep in (1.0, 0.25, 0.0):
        found = answers(model, processor, samples, keep)
        scores = score(samples, found)
        assert len(found) == 7 and scores["all"] <= 1
    perfect = score(samples, [sample.answer for sample in samples])
    assert perfect["all"] == 1 and perfect.get("page_cer", 0) == 0
