"""Every frame of a clip keeps what its time stamp needs: at least min(k_min, B // T) tokens of a budget of B."""

from __future__ import annotations

import functools

import pytest
import torch

from tests.tiny.models import FAMILIES
from tokenprune import get_method, patch_model

STAMPED = ("qwen3_vl", "glm4v", "video_llama_3", "internvl", "smolvlm", "molmo2")
OTHERS = ("llava_onevision", "llava_next_video", "video_llava", "perception_lm")


@functools.lru_cache(maxsize=1)
def built(name: str) -> torch.nn.Module:
    return FAMILIES[name].build()


@torch.no_grad()
def per_frame(name: str, method: str, **hyper) -> tuple[list[int], int]:
    """Patches kept of each frame of the family's video, and tokens kept of all."""
    family, model = FAMILIES[name], built(name)
    with patch_model(model, get_method(method, **hyper), family.reader) as handle:
        model(**family.inputs("video"))
        [video] = handle.report.images
    assert video.kind == "video" and video.grid[0] > 1
    patches = video.coords[video.kept]
    frames = patches[patches[:, 2] >= 0, 1]
    return torch.bincount(frames, minlength=video.grid[0]).tolist(), video.after


@pytest.mark.parametrize("budget", ["fixed", "adaptive"])
@pytest.mark.parametrize("name", [name for name in STAMPED + OTHERS if name in FAMILIES])
def test_progressive_leaves_no_frame_without_content(name, budget):
    frames = len(per_frame(name, "progressive", keep=1)[0])
    for keep in (1, frames - 1, frames, frames + 1, 2 * frames, 2 * frames + 1, 3 * frames - 1):
        counts, kept = per_frame(name, "progressive", keep=keep, budget=budget)
        assert kept == keep
        share = keep - (
            name in ("llava_onevision", "video_llava") and keep > frames
        )  # a separator stays as well
        assert min(counts) >= min(2, share // frames), (keep, counts)


@pytest.mark.parametrize("k_min", [1, 2, 3])
@pytest.mark.parametrize("name", ["qwen3_vl", "internvl"])
def test_k_min_is_what_every_frame_keeps(name, k_min):
    # Of random frames each is news, so the floor is looked for where nothing is: all tokens count as told already.
    counts, _ = per_frame(name, "progressive", budget="threshold", eps=2.0, k_min=k_min)
    assert counts[1:] == [k_min] * (len(counts) - 1) and counts[0] >= k_min
    counts, _ = per_frame(name, "progressive", budget="adaptive", keep=k_min * len(counts), k_min=k_min)
    assert counts == [k_min] * len(counts)


def test_evs_promises_no_such_thing():
    """At one frame's worth of tokens the published rule keeps the first frame and nothing else."""
    counts, _ = per_frame("qwen3_vl", "evs", keep=12)
    assert counts == [12, 0, 0]
