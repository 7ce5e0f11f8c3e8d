import pytest
from PIL import Image

from tests.tiny.processors import save_pretrained
from tokenprune.chat import load_chat
from tokenprune.errors import UnsupportedModelError
from tokenprune.eval.resize import Resizer, _grid

CELLS = [(98, (9, 10)), (49, (7, 7)), (22, (4, 5)), (11, (3, 3)), (1, (1, 1)), (2, (1, 1))]


@pytest.mark.parametrize(("budget", "cells"), CELLS)
def test_a_grid_never_exceeds_its_budget_and_stays_near_square(budget, cells):
    h, w = _grid(budget)
    assert sorted((h, w)) == sorted(cells) and h * w <= budget


def test_a_tower_of_one_size_reads_fewer_patches(chat):
    resizer, image = Resizer(chat), Image.new("RGB", (40, 32), "red")
    before = dict(vars(chat.processor.image_processor))
    with resizer.inputs([image, image], ["is the circle red ?"] * 2, 0.25) as inputs:
        assert resizer.visual(inputs) == [4, 4] and tuple(inputs["pixel_values"].shape[-2:]) == (16, 16)
        chat.generate(inputs, 2)
    assert vars(chat.processor.image_processor).keys() == before.keys()
    assert resizer.visual(chat.inputs(image, "is the circle red ?")) == [16]


def test_a_tower_that_cannot_is_said(chat, monkeypatch):
    resizer = Resizer(chat)
    monkeypatch.setattr(type(resizer.parts.tower), "forward", lambda self, pixel_values: None)
    with (
        pytest.raises(UnsupportedModelError, match="one size only"),
        resizer.inputs([Image.new("RGB", (32, 32))], ["x"], 4),
    ):
        pass


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    save_pretrained("qwen2_5_vl", folder)
    return load_chat(str(folder))


def test_a_processor_that_keeps_sizes_gets_a_smaller_picture(qwen):
    resizer = Resizer(qwen)
    images = [Image.new("RGB", (112, 84), "red"), Image.new("RGB", (84, 84), "blue")]
    full = resizer.visual(qwen.inputs(images, ["a", "a"]))
    for keep in (0.5, 0.25):
        with resizer.inputs(images, ["a", "a"], keep) as inputs:
            for n, whole in zip(resizer.visual(inputs), full):
                assert 0 < n <= keep * whole + 0.5
            qwen.generate(inputs, 2)
