"""Training shortcuts say the same as the stock model: slots, growth, windows; and the tokenizer spells."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from tokenprune.zoo.build import build_tokenizer, vision_config
from tokenprune.zoo.drawing import label_patches
from tokenprune.zoo.training.language import WordPatches, grow, new_language
from tokenprune.zoo.training.slots import IGNORE, SLOT, Encoder, SlotDecoder, encode
from tokenprune.zoo.training.tower import cells, features, stack_labels, training_scene


@pytest.fixture(scope="module")
def lesson():
    """A two-layer decoder with made-up visual tokens and slots for two scenes."""
    torch.manual_seed(0)
    rng = random.Random(0)
    model = new_language(2)
    scenes = [training_scene(rng) for _ in range(2)]
    batch = encode(scenes, Encoder(build_tokenizer()), rng, count=4)
    labels = stack_labels([label_patches(scene) for scene in scenes])
    where = torch.arange(196).expand(2, -1)
    visual = WordPatches(128)(labels, where, model.embed_tokens.weight)
    return model, visual, batch


@torch.no_grad()
def test_each_slot_equals_the_stock_model_on_that_question_alone(lesson):
    model, visual, batch = lesson
    hidden = SlotDecoder(model, slots=4, compiled=False)(visual, batch)
    start = model.embed_tokens(torch.tensor([[1, 5]])).expand(2, -1, -1)
    for slot in range(4):
        alone = torch.cat((start, visual, model.embed_tokens(batch.inputs[:, slot])), 1)
        reference = model(inputs_embeds=alone).last_hidden_state[:, -SLOT:]
        torch.testing.assert_close(hidden[:, slot], reference, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_growing_repeats_each_layer_and_shares_out_what_it_adds(lesson):
    model, visual, _ = lesson
    before = model(inputs_embeds=visual).last_hidden_state
    assert torch.equal(grow(model, 2)(inputs_embeds=visual).last_hidden_state, before)
    deep = grow(model, 6)
    assert torch.equal(deep.embed_tokens.weight, model.embed_tokens.weight)
    for i, layer in enumerate(deep.layers):
        source = model.layers[i // 3]
        assert torch.equal(layer.mlp.up_proj.weight, source.mlp.up_proj.weight)
        torch.testing.assert_close(3 * layer.mlp.down_proj.weight, source.mlp.down_proj.weight)
        torch.testing.assert_close(3 * layer.self_attn.o_proj.weight, source.self_attn.o_proj.weight)


@torch.no_grad()
def test_features_are_the_hidden_states_llava_reads():
    torch.manual_seed(0)
    tower = CLIPVisionModel(CLIPVisionConfig(**vision_config())).eval()
    images = torch.randn(2, 3, 224, 224)
    stock = tower(images, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(features(tower, images), stock, atol=1e-4, rtol=1e-4)


def test_cells_of_a_window_are_in_raster_order():
    assert cells((16, 32, 48, 64)).tolist() == [29, 30, 43, 44]


def test_targets_are_the_answer_and_its_end_and_nothing_else(lesson):
    _, _, batch = lesson
    tokenizer = build_tokenizer()
    for targets in batch.targets.flatten(0, 1):
        answer = targets[targets != IGNORE].tolist()
        assert answer[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(answer[:-1]).strip()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("what colour is the circle?", [" what", " colour", " is", " the", " circle", "?"]),
        ("What color is it ?", [" what", " colour", " is", " it", "?"]),
        ("how many crosses are there?", [" how", " many", " cross", "es", " are", " there", "?"]),
        ("BOOK", list("BOOK")),
        ("hello", ["<unk>"]),
    ],
)
def test_the_tokenizer_knows_words_plurals_and_letters(text, tokens):
    tokenizer = build_tokenizer()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == tokens


@pytest.mark.parametrize("answer", ["top left", "blue star", "WHEAT", "3", "yes"])
def test_answers_survive_the_round_trip(answer):
    tokenizer = build_tokenizer()
    ids = tokenizer(f"{answer}</s>", add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == answer
