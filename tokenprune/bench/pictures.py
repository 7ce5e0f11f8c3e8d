"""Prompts with one square picture, as each processor would make them, and the text prompt of what a cut leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .architectures import Architecture

FIRST_WORD, WORDS = 100, 900
"""Text is drawn from ids that no tokenizer of these models uses for anything special, and that all of them have."""


def prompt(
    one: Architecture,
    config: Any,
    *,
    side: int | None = None,
    text: int = 60,
    device: Any = "cpu",
    dtype: Any = None,
) -> dict[str, Tensor]:
    """Ids and pixels of a picture of `side` x `side` with half of the `text` tokens before it and half behind.

    Raises `InputError` where the model cuts pictures of that side another way than into whole tiles or cells.
    """
    ids, inputs = PICTURES[one.picture](config, side or one.side)
    row = torch.cat([words(text // 2), ids, words(text - text // 2, seed=3)])
    if one.picture == "patches":
        inputs["mm_token_type_ids"] = (row == config.image_token_id).long()[None]
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype or torch.float32)
    inputs |= {"input_ids": row[None], "attention_mask": torch.ones_like(row)[None]}
    return {name: value.to(device) for name, value in inputs.items()}


def text_prompt(length: int, device: Any = "cpu") -> dict[str, Tensor]:
    """Words alone."""
    ids = words(length)[None].to(device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def visual(inputs: dict[str, Tensor], config: Any) -> int:
    """Visual tokens of a prompt."""
    return int((inputs["input_ids"] == image_id(config)).sum())


def image_id(config: Any) -> int:
    """The placeholder's id."""
    found = getattr(config, "image_token_id", None)
    return config.image_token_index if found is None else found


def words(count: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(FIRST_WORD, FIRST_WORD + WORDS, (count,), generator=generator)


def _pixels(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _only(side: int, step: int, most: int | None = None) -> int:
    """How many steps a side is."""
    if side % step or (most is not None and side > most):
        limit = "" if most is None else f", {most} at most"
        raise InputError(f"a side of {side} pixels: this model takes multiples of {step}{limit}")
    return side // step


def _whole(config: Any, side: int) -> tuple[Tensor, dict[str, Tensor]]:
    """One square of the tower's own size."""
    vision = config.vision_config
    _only(side, vision.image_size, vision.image_size)
    count = (side // vision.patch_size) ** 2
    return torch.full((count,), image_id(config)), {"pixel_values": _pixels(1, 3, side, side)}


def _newlines(config: Any, side: int) -> tuple[Tensor, dict[str, Tensor]]:
    """A thumbnail, and tiles put together into one picture whose rows end in a newline."""
    tile, patch = config.vision_config.image_size, config.vision_config.patch_size
    tiles, grid = _only(side, tile, 3 * tile), tile // patch
    if [side, side] not in [list(p) for p in config.image_grid_pinpoints]:
        sides = sorted(h for h, w in config.image_grid_pinpoints if h == w and h <= 3 * tile)
        raise InputError(f"a side of {side} pixels: this model has square grids of {sides}")
    count = grid**2 + tiles * grid * (tiles * grid + 1)
    pixels = {
        "pixel_values": _pixels(1, 1 + tiles**2, 3, tile, tile),
        "image_sizes": torch.tensor([[side, side]]),
    }
    return torch.full((count,), image_id(config)), pixels


def _patches(config: Any, side: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Patches of any number, merged by cells."""
    vision = config.vision_config
    cells = _only(side, vision.patch_size * vision.spatial_merge_size)
    rows = side // vision.patch_size
    values = 3 * vision.temporal_patch_size * vision.patch_size**2
    marks = [torch.tensor([i]) for i in (config.vision_start_token_id, config.vision_end_token_id)]
    ids = torch.cat([marks[0], torch.full((cells**2,), config.image_token_id), marks[1]])
    return ids, {"pixel_values": _pixels(rows**2, values), "image_grid_thw": torch.tensor([[1, rows, rows]])}


def _tiles(config: Any, side: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Tiles of the tower's size, and behind several of them a thumbnail."""
    tile, patch = config.vision_config.image_size[0], config.vision_config.patch_size[0]
    tiles = _only(side, tile) ** 2
    tiles += tiles > 1
    count = tiles * int(tile // patch * config.downsample_ratio) ** 2
    before, behind = torch.tensor([config.image_token_id - 2]), torch.tensor([config.image_token_id - 1])
    ids = torch.cat([before, torch.full((count,), config.image_token_id), behind])
    return ids, {"pixel_values": _pixels(tiles, 3, tile, tile)}


PICTURES: dict[str, Callable[[Any, int], tuple[Tensor, dict[str, Tensor]]]] = {
    "whole": _whole, "tiles with newlines": _newlines, "patches": _patches, "tiles": _tiles,
}  # fmt: skip
