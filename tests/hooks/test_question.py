"""Which tokens are the question: with the processor's chat template, without one, and set by hand."""

from __future__ import annotations

import pytest
import torch

from tests.hooks.spy import Spy
from tests.tiny.base import BOS, text_ids
from tests.tiny.models import FAMILIES
from tests.tiny.processors import build_processor
from tests.tiny.test_processors import encode, image
from tokenprune import patch_model
from tokenprune.errors import InputError, PatchError

FIRST, SECOND = "where is the red square?", "how many circles are there?"
LETTERS = str.maketrans("", "", " \n")


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def user(*parts) -> dict:
    content = [{"type": "image", "image": p} if not isinstance(p, str) else {"type": "text", "text": p} for p in parts]
    return {"role": "user", "content": content}


def said(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


CHATS = {
    "image first": ([user(image(), FIRST)], FIRST),
    "image last": ([user(FIRST, image())], FIRST),
    "images around": ([user(image(), FIRST, image(seed=1))], FIRST),
    "two turns": ([user(image(), FIRST), said("yes."), user(SECOND)], SECOND),
    "two turns with an image each": ([user(image(), FIRST), said("no."), user(image(seed=1), SECOND)], SECOND),
    "system prompt": ([{"role": "system", "content": "read the text."}, user(image(), FIRST)], FIRST),
    "the answer repeats the question": ([user(image(), FIRST), said(FIRST), user(SECOND)], SECOND),
}


def ask(name: str, chats: list, processor: bool, question=None) -> list[dict]:
    """The images as a method that reads the question sees them."""
    family, spy = FAMILIES[name], Spy(fields=("text", "question"))
    model = family.build()
    inputs = encode(build_processor(name), chats)
    with patch_model(model, spy, build_processor(name) if processor else None) as handle:
        handle.question(question)
        model(**inputs)
        seen = spy.images()
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
        assert [s["question"] for s in spy.images()] == [s["question"] for s in seen]
    return seen


def squeeze(text: str) -> str:
    return text.translate(LETTERS)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_the_latest_user_turn_is_found_by_the_template(name, chat):
    turns, wanted = CHATS[chat]
    seen = ask(name, [turns], processor=True)
    embeddings = FAMILIES[name].build().get_input_embeddings().weight
    for one in seen:
        assert squeeze(one["question"]) == squeeze(wanted)
        ids = torch.cdist(one["text"][one["text_mask"]], embeddings).argmin(1)
        assert squeeze(build_processor(name).tokenizer.decode(ids)) == squeeze(wanted)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_each_row_of_a_batch_has_its_own_question(name):
    chats = [[user(image(), image(seed=1), FIRST)], [user(image(seed=2), SECOND + " " + FIRST)]]
    seen = ask(name, chats, processor=True)
    assert sorted(squeeze(s["question"]) for s in seen) == sorted(map(squeeze, (FIRST, FIRST, SECOND + FIRST)))
    for one in seen:
        assert one["text_mask"].sum() == one["text"][one["text_mask"]].shape[0] > 5


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("text", [SECOND, "tokens"])
def test_a_question_set_by_hand(name, text):
    given = torch.tensor(text_ids(4, "by hand")) if text == "tokens" else text
    seen = ask(name, CHATS["image first"][:1], processor=True, question=given)
    [one] = seen
    ids = torch.cdist(one["text"], FAMILIES[name].build().get_input_embeddings().weight).argmin(1)
    tokenizer = build_processor(name).tokenizer
    if text == "tokens":
        assert ids.tolist() == given.tolist()
    else:
        assert one["question"] == text and tokenizer.decode(ids) == text


def test_text_needs_a_tokenizer_and_says_so_where_it_is_set():
    with patch_model(FAMILIES["llava"].build(), "flashvlm") as handle:
        with pytest.raises(InputError, match="processor"):
            handle.question(SECOND)
        handle.question(torch.tensor([30, 31]))
        handle.question(None)


# -- without a processor ----------------------------------------------------------------------------------------------


def read_ids(name: str, inputs: dict) -> list[list[int]]:
    """Ids of the question of each image."""
    family, spy = FAMILIES[name], Spy(fields=("text",))
    model = family.build()
    table = model.get_input_embeddings().weight
    with patch_model(model, spy):
        model(**inputs)
    return [torch.cdist(s["text"][s["text_mask"]], table).argmin(1).tolist() for s in spy.images()]


@pytest.mark.parametrize("name,media", [("llava", "image"), ("qwen2_5_vl", "3x4")])
def test_without_a_processor_it_is_the_text_behind_the_last_image(name, media):
    family = FAMILIES[name]
    row = family.row([4, media, 3, media, 6], "s")
    assert read_ids(name, family.assemble([row])) == [row[-1]] * 2


def test_without_text_behind_it_is_the_text_before_the_first_image():
    family = FAMILIES["qwen2_5_vl"]
    row, other = family.row([5, "3x4"], "s"), family.row([2, "3x4", 7], "t")
    inputs = family.assemble([row, other])
    assert sorted(read_ids("qwen2_5_vl", inputs)) == sorted([row[0], other[-1]])  # left padding is no text


def test_input_that_ends_inside_an_image_is_refused_where_a_question_is_read():
    """So looks the first chunk of a prefill in pieces."""
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.assemble([family.row([5, "image"], "s")])
    with patch_model(model, "flashvlm", keep=6) as handle:
        with pytest.raises(PatchError, match=r"prefill_chunk_size, set handle\.question"):
            model(**inputs)
        handle.question(torch.tensor([30, 31]))
        model(**inputs)
        assert handle.report.after == 6


def test_an_image_alone_has_no_question_and_is_ranked_by_the_tower():
    family = FAMILIES["llava"]
    model, inputs = family.build(), family.assemble([family.row(["image", 0], "s")])
    ids = torch.cat([inputs["input_ids"], torch.tensor([[BOS]])], 1)
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    kept = []
    for eta in (0.5, 0.0):
        with patch_model(model, "flashvlm", keep=6, eta=eta) as handle:
            model(**inputs)
            kept.append(handle.report.images[0].kept)
    assert kept[0] == kept[1]


# -- what it is for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processor", [True, False])
@pytest.mark.parametrize("order", ["image first", "image last"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_two_questions_about_one_picture_keep_different_tokens(name, order, processor):
    family = FAMILIES[name]
    model, picture = family.build(), image(80, 80)

    def chat(text):
        return [user(picture, text) if order == "image first" else user(text, picture)]

    kept = {}
    with patch_model(model, "flashvlm", build_processor(name) if processor else None, keep=0.3) as handle:
        for text in (FIRST, SECOND, FIRST):
            model(**encode(build_processor(name), [chat(text)]))
            kept.setdefault(text, []).append(handle.report.images[0].kept)
        batch = encode(build_processor(name), [chat(FIRST), chat(SECOND)])
        model(**batch)
        rows = [i.kept for i in handle.report.images]
    assert kept[FIRST][0] == kept[FIRST][1]
    if order == "image last" and not processor:
        return  # without a template, the words behind the image ("ASSISTANT:") pass for the question
    assert kept[FIRST][0] != kept[SECOND][0]
    assert rows == [kept[FIRST][0], kept[SECOND][0]]
