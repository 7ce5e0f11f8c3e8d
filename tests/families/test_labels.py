"""Frames that reach a model as images: which of them are one video, by the words of the processors themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    InternVLProcessor,
    InternVLVideoProcessor,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor

from tests.fixed import Fixed
from tests.tiny import labels
from tests.tiny.base import (
    FAKE_IMAGE,
    GLOBAL_IMAGE,
    IMAGE,
    ROW_COL,
    VIDEO,
    VISION_END,
    VISION_START,
    Media,
    pixels,
)
from tests.tiny.models import FAMILIES
from tests.tiny.processors import tokenizer
from tokenprune import patch_model
from tokenprune.families.idefics3 import SmolVLM
from tokenprune.families.internvl import InternVL
from tokenprune.families.labels import READ

TILE = [IMAGE] * 16
MARKED = [VISION_START, *TILE, VISION_END]
WORD = [90]
SMOL = [FAKE_IMAGE, GLOBAL_IMAGE, *TILE, FAKE_IMAGE]


def clips(family, ids: list[int]) -> list[int | None]:
    """What the family says of every run of 16 placeholders."""
    row = torch.tensor(ids)
    starts = [i for i, t in enumerate(ids) if t == IMAGE and (i == 0 or ids[i - 1] != IMAGE)]
    return family().same_clip(row, [(s, s + 16) for s in starts], labels.Reader().decode)


def frame(number: int) -> list[int]:
    return [labels.FRAME, labels.ZERO + number, labels.COLON, labels.SPACE, *MARKED]


THREE = labels.numbered([MARKED] * 3)
STAMPED = labels.timed([SMOL] * 2)


@pytest.mark.parametrize("family,ids,wanted", [
    (InternVL, [*WORD, *THREE, *WORD], [0, 0, 0]),
    (InternVL, [*THREE, labels.BREAK, *THREE], [0, 0, 0, 1, 1, 1]),
    (InternVL, [*MARKED, labels.BREAK, *THREE, labels.BREAK, *MARKED], [None, 0, 0, 0, None]),
    (InternVL, [*frame(1), labels.BREAK, *frame(3)], [0, 1]),  # a number is missing
    (InternVL, [*frame(1), *WORD, *frame(2)], [0, 1]),  # words between
    (InternVL, [*frame(1), *MARKED, *frame(2)], [0, None, 1]),  # an image between
    (InternVL, [*frame(1), *WORD * READ, *frame(2)], [0, 1]),
    (InternVL, [*frame(1), *[labels.BREAK] * READ, *frame(2)], [0, 1]),
    (InternVL, [*MARKED, labels.BREAK, *MARKED], [None, None]),
    (InternVL, STAMPED, [None, None]),  # the other family's words
    (SmolVLM, [*WORD, *STAMPED, *STAMPED, *WORD, *SMOL], [0, 0, 1, 1, None]),
    (SmolVLM, [*SMOL, *STAMPED], [None, 0, 0]),
    (SmolVLM, THREE, [None, None, None]),
])  # fmt: skip
def test_labels_say_what_is_a_clip(family, ids, wanted):
    assert clips(family, ids) == wanted


@pytest.mark.parametrize("name,count", [("internvl", 3), ("smolvlm", 3)])
@torch.no_grad()
def test_without_a_processor_frames_are_images(name, count):
    family = FAMILIES[name]
    model, inputs = family.build(), family.inputs("video")
    with patch_model(model, Fixed()) as handle:
        model(**inputs)
        assert [(i.kind, i.grid) for i in handle.report.images] == [("image", (1, 4, 4))] * count


@torch.no_grad()
def test_an_image_of_several_tiles_is_no_frame_whatever_stands_before_it():
    for name, ids in (
        ("internvl", labels.numbered([[VISION_START, *TILE * 3, VISION_END]])),
        ("smolvlm", labels.timed([[FAKE_IMAGE, ROW_COL, *TILE, FAKE_IMAGE, ROW_COL, *TILE, *SMOL]])),
    ):
        family = FAMILIES[name]
        image = Media("image", ids, {"pixel_values": pixels(3, 3, 32, 32, seed=0)})
        with patch_model(model := family.build(), Fixed(), family.reader) as handle:
            model(**family.assemble([[image, [90, 91]]]))
            assert [(i.kind, i.grid, i.before) for i in handle.report.images] == [("image", None, 48)]


SIDE = {"height": 32, "width": 32}


def internvl_processor() -> InternVLProcessor:
    names = {IMAGE: "<IMG_CONTEXT>", VIDEO: "<video>", VISION_START: "<img>", VISION_END: "</img>"}
    marks = {
        "start_image": "<img>",
        "end_image": "</img>",
        "context_image": "<IMG_CONTEXT>",
        "video": "<video>",
    }
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=SIDE),
        tokenizer=tokenizer(names, bos=False, **{f"{k}_token": v for k, v in marks.items()}),
        video_processor=InternVLVideoProcessor(size=SIDE),
        image_seq_length=16,
    )


def smolvlm_processor() -> SmolVLMProcessor:
    names = {
        IMAGE: "<image>",
        VIDEO: "<video>",
        FAKE_IMAGE: "<fake_token_around_image>",
        GLOBAL_IMAGE: "<global-img>",
    }
    return SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer=tokenizer(names, bos=False, image_token="<image>", video_token="<video>"),
        video_processor=SmolVLMVideoProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 32}),
        image_seq_len=16,
    )


def frames(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, 3, 32, 32), dtype=np.uint8)


def seen(name: str, processor, **call) -> list[tuple]:
    """(kind, grid, tokens) of every image and video of a call, by the real processor's inputs."""
    inputs = processor(return_tensors="pt", **call)
    with patch_model(model := FAMILIES[name].build(), Fixed(), processor) as handle, torch.no_grad():
        model(**inputs)
        return [(i.kind, i.grid, i.before) for i in handle.report.images]


def test_internvl_processor():
    # two tiles and a thumbnail
    picture = np.random.default_rng(3).integers(0, 255, (32, 64, 3), dtype=np.uint8)
    found = seen(
        "internvl", internvl_processor(), text=["see <IMG_CONTEXT>\n<video>\nwhat changed?<video>"],
        images=[picture], videos=[frames(4, 0), frames(4, 1)], do_sample_frames=False,
    )  # fmt: skip
    assert found == [("image", None, 48), ("video", (4, 4, 4), 64), ("video", (4, 4, 4), 64)]
    small = seen("internvl", internvl_processor(), text=["<IMG_CONTEXT>\n<IMG_CONTEXT>\nhow many?"],
                 images=[picture[:, :32], picture[:, 32:]])  # fmt: skip
    assert small == [("image", (1, 4, 4), 16)] * 2


def test_smolvlm_processor(monkeypatch):
    from transformers.models.smolvlm import processing_smolvlm

    if processing_smolvlm.num2words is None:  # it writes the number of frames in the introduction
        monkeypatch.setattr(processing_smolvlm, "num2words", str)
    clip = {"fps": 1.0, "total_num_frames": 4, "frames_indices": [0, 1, 2, 3], "duration": 4.0}
    found = seen(
        "smolvlm", smolvlm_processor(), text=["<video>what happens?"],
        videos=[[frames(4, 0)]], video_metadata=[[clip]], do_sample_frames=False,
    )  # fmt: skip
    assert found == [("video", (4, 4, 4), 64)]
