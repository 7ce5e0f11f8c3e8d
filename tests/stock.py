"""What the oldest supported libraries get wrong by themselves, told by what they do and not by their numbers."""

from __future__ import annotations

import pytest
import torch
from transformers.video_utils import VideoMetadata, default_sample_indices_fn


def needs_clip_times(model) -> None:
    """Qwen2.5-VL of transformers 5.17 rounds the seconds between frame pairs down: half a second is none."""
    config = model.config
    ids = torch.tensor([[1, config.vision_start_token_id, *[config.video_token_id] * 2, 1]])
    grid = torch.tensor([[2, 2, 2]])
    places, _ = model.model.get_rope_index(
        ids, 2 * (ids == config.video_token_id).int(), video_grid_thw=grid, second_per_grid_ts=torch.tensor([0.5])
    )
    if places[0, 0, 2] == places[0, 0, 3]:
        pytest.skip("this transformers has no times below a second between the frames of a clip")


def needs_exact_sampling() -> None:
    """transformers 5.17 steps through a clip by a rounded float."""
    if default_sample_indices_fn(VideoMetadata(total_num_frames=5, fps=5.0), num_frames=3).tolist() != [0, 1, 3]:
        pytest.skip("this transformers samples frames by another rule")
