"""Phase `cells`: the vision tower of `tiny-qwen` learns what each merged token of 16 x 16 pixels shows.

Pages give a character, the two that are read before it and what follows it; scenes give colour, shape, size, letter
and centre, as they do for `tiny-llava`. The labels of what is read before make every place of a page findable from
what was written last, which is how a reader that has no column numbers keeps its place.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from .. import motion, typesetting
from ..build_qwen import CELL, FRAMES, MERGE, PATCH, qwen_config, start_vision
from ..drawing import UNSURE, label_patches, render
from ..layout import Box, Scene, Word
from ..motion import Clip, draw_clip
from ..pages import Page, draw_page
from ..splits import for_training
from ..vocabulary import COLOURS, SHAPES, SIZES
from . import common
from .slots import rms, rotate
from .tower import MEAN, STD, field_loss, random_window, resume, training_scene

READING = typesetting.FIELDS
THINGS = {"colour": len(COLOURS), "shape": len(SHAPES), "size": len(SIZES), "centre": 1}
FIELDS = READING | THINGS
Labels = dict[str, torch.Tensor]


def page_labels(page: Page) -> dict[str, np.ndarray]:
    """Field -> (rows, columns) int8; a page shows no things."""
    labels = typesetting.label_cells(page)
    labels["line"] = np.zeros_like(labels["char"])
    for number, line in enumerate(page.lines, 1):
        for piece in line:
            labels["line"][piece.row, piece.column : piece.end] = number
    return labels | {name: np.zeros_like(labels["char"]) for name in THINGS}


def clip_labels(clip: Clip) -> dict[str, np.ndarray]:
    """Field -> (time steps, rows, columns) int8; what only one frame of a step shows is a sliver."""
    steps = []
    for number in range(0, motion.FRAMES, FRAMES):
        pair = []
        for frame in (number, number + 1):
            word = Word(clip.text(frame), *clip.word[1:3]) if clip.word and clip.text(frame) else None
            pair.append(
                scene_labels(Scene(tuple(clip.things(frame)), word), (0, 0, motion.SIDE, motion.SIDE))
            )
        first, second = pair
        steps.append({name: np.where(first[name] == second[name], first[name], UNSURE) for name in first})
    return {name: np.stack([step[name] for step in steps]) for name in steps[0]}


def scene_labels(scene: Scene, window: Box) -> dict[str, np.ndarray]:
    """Field -> (rows, columns) int8 of the window's cells; a word's letters are labelled as a page's are."""
    whole = label_patches(scene)
    letters = whole.letter
    labels = {name: getattr(whole, name).copy() for name in THINGS}
    labels["char"] = letters.copy()  # LETTERS come first in CHARACTERS
    for name in ("before", "before2", "after"):
        labels[name] = np.where(letters == UNSURE, UNSURE, 0).astype(np.int8)
    rows, columns = np.nonzero(letters > 0)
    order = sorted(zip(columns, rows))
    text = [int(letters[r, c]) for c, r in order]
    codes = [typesetting.START, typesetting.START, *text]
    for k, (c, r) in enumerate(order):
        labels["before2"][r, c], labels["before"][r, c] = codes[k], codes[k + 1]
        labels["after"][r, c] = typesetting.PAGE_END if k + 1 == len(order) else typesetting.SAME
    labels["line"] = np.zeros_like(letters)
    left, top, right, bottom = (side // CELL for side in window)
    return {name: field[top:bottom, left:right] for name, field in labels.items()}


def stack_labels(labels: list[dict[str, np.ndarray]]) -> Labels:
    """Field -> (B, cells) long, row by row."""
    return {
        name: torch.from_numpy(np.stack([one[name] for one in labels])).long().flatten(1)
        for name in (*FIELDS, "line")
    }


def training_page(rng: random.Random, rows: int, columns: int, most: int = 80) -> Page:
    """A page that the test split can never draw."""
    return for_training(lambda: draw_page(rng, "train", rows, columns, most=most))


def training_clip(rng: random.Random) -> Clip:
    """A clip that the test split can never draw."""
    return for_training(lambda: draw_clip(rng))


def patches(pictures: list[Image.Image]) -> torch.Tensor:
    """Pictures of one size -> (B, patches, 3 * 8 * 8), normalised and in the order of the processor."""
    raw = (np.stack([np.asarray(p, np.float32) for p in pictures]) / 255 - MEAN) / STD
    count, height, width, _ = raw.shape
    grid = (height // CELL, MERGE, PATCH, width // CELL, MERGE, PATCH)
    split = raw.reshape(count, *grid, 3).transpose(0, 1, 4, 2, 5, 7, 3, 6)
    return torch.from_numpy(split.reshape(count, -1, 3 * PATCH * PATCH))


class Tower(nn.Module):
    """The stock vision tower over a batch of pictures of one size: the same numbers, without its loop over windows."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = Qwen2_5_VisionTransformerPretrainedModel(qwen_config(1).vision_config)
        start_vision(self.vision)
        self._places: dict[tuple[int, int], tuple[torch.Tensor, ...]] = {}

    def _grid(self, rows: int, columns: int) -> tuple[torch.Tensor, ...]:
        """cos and sin (patches, 32) and the mask (patches, patches) of the window layers, in merged order."""
        if (rows, columns) not in self._places:
            r, c = torch.arange(rows), torch.arange(columns)
            inner = torch.arange(MERGE)
            y = (
                (r[:, None, None, None] * MERGE + inner[:, None])
                .expand(rows, columns, MERGE, MERGE)
                .flatten()
            )
            x = (c[:, None, None] * MERGE + inner).expand(rows, columns, MERGE, MERGE).flatten()
            cos, sin = self.vision.rotary_pos_emb(torch.zeros(1), torch.stack((y, x), -1).float())
            side = self.vision.window_size // PATCH
            window = (y // side) * 1000 + x // side
            mask = torch.zeros(len(y), len(y)).masked_fill(window[:, None] != window, -1e9)
            self._places[rows, columns] = cos, sin, mask
        return self._places[rows, columns]

    def forward(self, pixels: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """(B, patches, 192) of still pictures or (B, patches, 384) of frame pairs -> (B, cells, 128)."""
        vision = self.vision
        kernel = vision.patch_embed.proj.weight
        if pixels.shape[-1] == 3 * PATCH * PATCH:
            kernel = kernel.sum(2)  # both frames of a still picture are the same
        x = F.linear(pixels, kernel.flatten(1)).float()
        cos, sin, mask = (t.to(x.device) for t in self._grid(rows, columns))
        batch, length, width = x.shape
        for number, block in enumerate(vision.blocks):
            y = rms(x.float(), block.norm1.weight)
            heads = block.attn.num_heads
            q, k, v = block.attn.qkv(y).view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            q, k = (rotate(q, cos, sin) * block.attn.scaling).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
            scores = (q @ k.transpose(2, 3)).float()
            if number not in vision.fullatt_block_indexes:
                scores = scores + mask
            seen = torch.softmax(scores, -1).to(v.dtype) @ v
            x = x + block.attn.proj(seen.transpose(1, 2).reshape(batch, length, width))
            x = x + block.mlp(rms(x.float(), block.norm2.weight))
        merged = rms(x.float(), vision.merger.ln_q.weight).view(batch, -1, MERGE * MERGE * width)
        return vision.merger.mlp(merged).float()


class CellReader(nn.Module):
    """The tower with one linear head a field; the heads are thrown away after training."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = Tower()
        width = self.tower.vision.config.out_hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, n + 1) for name, n in FIELDS.items()})

    def forward(self, pixels: torch.Tensor, rows: int, columns: int) -> dict[str, torch.Tensor]:
        cells = self.tower(pixels, rows, columns)
        return {name: head(cells) for name, head in self.heads.items()}


def loss_of(
    logits: dict[str, torch.Tensor], labels: Labels, fields: dict[str, int]
) -> tuple[torch.Tensor, dict]:
    """Sum over `fields` of their losses, and the share right of what is shown and of what is empty."""
    total, right_of = torch.zeros((), device=labels["char"].device), {}
    for name in fields:
        loss, right = field_loss(logits[name], labels[name])
        total = total + loss
        shown = labels[name] > 0
        if shown.any():
            right_of[name] = right[shown].float().mean()
        right_of[f"{name}_empty"] = right[labels[name] == 0].float().mean()
    return total, right_of


def draw_pages(rng: random.Random, count: int, rows: int, columns: int) -> tuple[torch.Tensor, Labels]:
    pages = [training_page(rng, rows, columns) for _ in range(count)]
    pixels = patches([typesetting.render(page) for page in pages])
    return pixels, stack_labels([page_labels(page) for page in pages])


def draw_scenes(rng: random.Random, count: int, side: int) -> tuple[torch.Tensor, Labels]:
    windows = [random_window(rng, side) for _ in range(count)]
    scenes = [training_scene(rng, one) for one in windows]
    pixels = patches([render(scene, window) for scene, window in zip(scenes, windows)])
    return pixels, stack_labels([scene_labels(*pair) for pair in zip(scenes, windows)])


GRIDS = ((4, 12), (2, 20), (6, 8), (3, 16))


def train(
    out: Path, minutes: float, pages: int = 32, scenes: int = 16, side: int = 7, rate: float = 2e-3,
    grids: tuple[tuple[int, int], ...] = GRIDS, thing_weight: float = 0.7, seed: int = 0, name: str = "cells",
    start: str | None = None,
) -> None:  # fmt: skip
    """Train for `minutes` of wall time in all, resuming from `out/<name>.pt`, or else from phase `start`."""
    torch.manual_seed(seed)
    device = common.device()
    reader = CellReader().to(device)
    optim = common.optimiser([reader], rate)
    state = resume(reader, optim, out, name, start)

    def contents() -> dict[str, Any]:
        return {"reader": reader.state_dict(), "optim": optim.state_dict()}

    run = common.Run(out, name, minutes, state, contents)

    def draw(rng: random.Random) -> list[tuple[torch.Tensor, Labels, int, int]]:
        rows, columns = rng.choice(grids)
        parts = [(*draw_pages(rng, pages, rows, columns), rows, columns)]
        return parts + ([(*draw_scenes(rng, scenes, side), side, side)] if scenes else [])

    lessons = common.drawn(draw, seed * 1_000_003 + run.step)
    for seconds in run.steps():
        common.set_rate(optim, rate * common.schedule(run.step, seconds / (minutes * 60), 100, 0.02))
        optim.zero_grad(set_to_none=True)
        numbers = {}
        for number, (pixels, labels, height, width) in enumerate(next(lessons)):
            labels = {key: value.to(device) for key, value in labels.items()}
            with torch.autocast(device.type, torch.bfloat16):
                logits = reader(pixels.to(device), height, width)
            loss, right = loss_of(logits, labels, READING if number == 0 else FIELDS)
            (loss if number == 0 else thing_weight * loss).backward()
            mark = "s_" if number else ""
            numbers |= {f"{mark}loss": loss.detach(), **{mark + key: value for key, value in right.items()}}
        common.clip_gradients([reader])
        optim.step()
        run.mean.add(**numbers)


def frame_pairs(frames: list[Image.Image]) -> torch.Tensor:
    """Frames of a clip -> (pairs, patches, 3 * 2 * 8 * 8), as the video processor lays them out."""
    each = patches(frames).unflatten(-1, (3, PATCH * PATCH))
    pairs = each.unflatten(0, (-1, FRAMES)).permute(0, 2, 3, 1, 4)
    return pairs.flatten(2)
