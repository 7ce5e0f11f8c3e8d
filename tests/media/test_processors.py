"""Clips go through real video processors of transformers: shapes, grids and the times they write."""

import numpy as np
import pytest
import torch
from transformers import LlavaOnevisionVideoProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

from tokenprune.media import Clip, load_clip

from ..tiny.processors import QWEN_NAMES, build_processor, tokenizer
from .make import draw, uneven, write

VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    pytest.importorskip("av")
    return load_clip(write(tmp_path_factory.mktemp("p") / "clip.mp4"), frames=8)


def inputs(processor, clip, frames=None):
    return processor(
        text=[VIDEO],
        videos=[clip.frames if frames is None else frames],
        video_metadata=[clip.metadata()],
        do_sample_frames=False,
        return_tensors="pt",
    )


def test_qwen_2_5_reads_frames_and_rate(clip):
    processor = build_processor("qwen2_5_vl")
    found = inputs(processor, clip)
    grid = found["video_grid_thw"][0].tolist()
    assert grid[0] == 8 // processor.video_processor.temporal_patch_size
    assert found["pixel_values_videos"].shape[0] == np.prod(grid)
    again = inputs(processor, clip, clip.pictures())
    assert torch.equal(found["pixel_values_videos"], again["pixel_values_videos"])
    assert torch.equal(found["input_ids"], again["input_ids"])


def test_llava_onevision_keeps_the_frames(clip):
    side = {"height": 24, "width": 24}
    processor = LlavaOnevisionVideoProcessor(size=side)
    found = processor(
        videos=[clip.frames], video_metadata=[clip.metadata()], do_sample_frames=False, return_tensors="pt"
    )
    assert found["pixel_values_videos"].shape == (1, 8, 3, 24, 24)


@pytest.mark.parametrize("rate", ["even", "uneven"])
def test_qwen_3_writes_the_times_of_the_frames(tmp_path, rate):
    """It puts the mean time of each pair of frames before them, from nothing but the metadata."""
    pytest.importorskip("av")
    path = write(tmp_path / "clip.mp4", times=None if rate == "even" else uneven())
    clip = load_clip(path, frames=8)
    video = Qwen3VLVideoProcessor(
        size={"shortest_edge": 4096, "longest_edge": 65536}, patch_size=8, merge_size=2
    )
    text = tokenizer(QWEN_NAMES, bos=False, image_token="<|image_pad|>", video_token="<|video_pad|>",
                     vision_start_token="<|vision_start|>", vision_end_token="<|vision_end|>")  # fmt: skip
    processor = Qwen3VLProcessor(
        image_processor=build_processor("qwen2_5_vl").image_processor, tokenizer=text, video_processor=video
    )
    written = text.decode(inputs(processor, clip)["input_ids"][0])
    times = [
        float(part.split(" seconds>")[0])
        for part in written.replace(" ", " ").split("<")[1:]
        if " seconds>" in part
    ]
    expected = [(a + b) / 2 for a, b in zip(clip.timestamps[::2], clip.timestamps[1::2])]
    assert len(times) == 4 and times == pytest.approx(expected, abs=0.05 + 0.5 / clip.fps)


def test_a_clip_drawn_in_memory_goes_the_same_way():
    clip = Clip.of_frames(np.stack([draw(i) for i in range(6)]), fps=4.0)
    found = inputs(build_processor("qwen2_5_vl"), clip)
    assert found["video_grid_thw"][0, 0] == 3
