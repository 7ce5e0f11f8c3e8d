"""Whole conversations: a single question with its medium is what `Chat.inputs` makes of it, and media stay in place."""

import numpy as np
import pytest
import torch
from PIL import Image

from tokenprune.chat import load_chat
from tokenprune.errors import UnsupportedModelError
from tokenprune.media import Clip


@pytest.fixture(scope="module")
def chat():
    return load_chat("tiny-qwen")


def picture(seed, side=56):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


def asked(question, *media):
    return [{"role": "user", "content": [*media, {"type": "text", "text": question}]}]


def same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a if isinstance(a[k], torch.Tensor))


def test_pictures(chat):
    pictures, questions = [picture(0), picture(1, 84)], ["what is red ?", "how many ?"]
    turns = [asked(q, {"type": "image", "image": p}) for p, q in zip(pictures, questions)]
    same(chat.converse(turns), chat.inputs(pictures, questions))
    same(chat.converse(turns[:1]), chat.inputs(pictures[0], questions[0]))


def test_clips(chat):
    clip = Clip.of_frames([picture(i) for i in range(4)], 2.0, "clip")
    turns = [asked("what moves ?", {"type": "video", "video": clip})]
    same(chat.converse(turns), chat.inputs(clip, "what moves ?"))


def test_several_media_and_none(chat):
    """Rows of a batch with two pictures, with none, and of two turns."""
    two = asked("same ?", {"type": "image", "image": picture(0)}, {"type": "image", "image": picture(1)})
    later = [*asked("what ?", {"type": "image", "image": picture(2)}),
             {"role": "assistant", "content": [{"type": "text", "text": "a ball"}]}, *asked("red ?")]  # fmt: skip
    inputs = chat.converse([two, asked("hello ?"), later])
    shown = (inputs["input_ids"] == chat.model.config.image_token_id).sum(1).tolist()
    alone = chat.converse([two])["input_ids"]
    assert shown[1] == 0 < shown[2] < shown[0] == (alone == chat.model.config.image_token_id).sum()
    assert inputs["image_grid_thw"].shape[0] == 3


def test_a_model_that_watches_nothing_says_so():
    clip = Clip.of_frames([picture(0)], 1.0, "clip")
    with pytest.raises(UnsupportedModelError, match="watches no video"):
        load_chat("tiny-llava").converse([asked("what ?", {"type": "video", "video": clip})])
