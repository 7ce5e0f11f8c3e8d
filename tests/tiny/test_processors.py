"""The tiny processors feed the tiny models, alone and through the Auto classes and `pipeline`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from .models import FAMILIES
from .processors import BUILDERS, build_processor, save_pretrained


def image(width=60, height=40, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def chat(*images, text="where is the red square?"):
    content = [{"type": "image", "image": i} for i in images] + [{"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def encode(processor, chats, **kwargs):
    return processor.apply_chat_template(
        chats,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
        **kwargs,
    )


@pytest.mark.parametrize("name", BUILDERS)
def test_text_survives_the_tokenizer(name):
    tokenizer = build_processor(name).tokenizer
    text = "Is {this} kept, (exactly)?\nYes: 100% ~ `all`; it is."
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert tokenizer.convert_tokens_to_ids(tokenizer.image_token) == FAMILIES[name].image_token_id


@pytest.mark.parametrize("name", BUILDERS)
def test_saved_checkpoint_reads_a_batch(name, tmp_path):
    save_pretrained(name, tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    family = FAMILIES[name]
    chats = [chat(image(), image(40, 70, 1)), chat(image(seed=2), text="how many?")]
    inputs = encode(processor, chats)
    assert inputs["attention_mask"][1, 0] == 0, "padding is at the left"
    assert [len(row) for row in family.visual_positions(inputs)] == [2, 1]
    keys = set(family.inputs("batch"))
    assert set(inputs) == keys, "the hand-made inputs have the keys of the real processor"
    original = family.build()
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, original(**inputs).logits)
    assert (
        model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1]
        == inputs["input_ids"].shape[1] + 3
    )
    here = encode(build_processor(name), chats)
    assert all(torch.equal(here[key], inputs[key]) for key in keys)


@pytest.mark.parametrize("name", BUILDERS)
def test_pipeline(name, tmp_path):
    save_pretrained(name, tmp_path)
    pipe = pipeline("image-text-to-text", model=str(tmp_path))
    out = pipe(text=chat(image()), max_new_tokens=3, return_full_text=False, do_sample=False)
    assert isinstance(out[0]["generated_text"], str)


def test_qwen_video():
    processor, family = build_processor("qwen2_5_vl"), FAMILIES["qwen2_5_vl"]
    frames = np.random.default_rng(0).integers(0, 255, (6, 3, 32, 40), dtype=np.uint8)
    content = [{"type": "video"}, {"type": "text", "text": "what happens?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    metadata = {"fps": 2.0, "total_num_frames": 6, "frames_indices": list(range(6))}
    inputs = processor(text=[text], videos=[frames], video_metadata=[metadata], return_tensors="pt")
    assert set(inputs) == set(family.inputs("video"))
    t, h, w = inputs["video_grid_thw"][0].tolist()
    assert [len(where) for where in family.visual_positions(inputs)[0]] == [t * h * w // 4]
    assert t == 3
    with torch.no_grad():
        family.build()(**inputs)
