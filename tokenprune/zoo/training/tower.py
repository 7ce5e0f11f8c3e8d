"""Phase `tower`: a CLIP vision tower learns, patch by patch, what each patch of a picture shows.

Answers alone teach a small tower very slowly (one word of feedback for 196 patches); labels of every
patch teach it in a quarter of an hour. The class token learns which colours, shapes and letters the whole
picture holds: that is what makes its attention row a saliency map worth reading.
Only the layers up to the penultimate one are used, because that is where LLaVA reads its features.
"""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from ..drawing import GRID, UNSURE, PatchLabels, label_patches, render
from ..layout import PATCH, SIDE, Box, Scene, draw_scene
from ..splits import for_training
from ..vocabulary import COLOURS, LETTERS, SHAPES, SIZES
from . import common

log = logging.getLogger(__name__)

VISUAL = GRID * GRID
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
FIELDS = {
    "colour": len(COLOURS),
    "shape": len(SHAPES),
    "size": len(SIZES),
    "letter": len(LETTERS),
    "centre": 1,
}
RELATIONS = {
    "left_colour": len(COLOURS),
    "left_shape": len(SHAPES),
    "near_colour": len(COLOURS),
    "near_shape": len(SHAPES),
}
FIELDS |= RELATIONS


WHOLE: Box = (0, 0, SIDE, SIDE)


def random_window(rng: random.Random, patches: int) -> Box:
    """A square of `patches` x `patches` somewhere on the 14 x 14 grid, in pixels."""
    left, top = (rng.randint(0, GRID - patches) * PATCH for _ in range(2))
    return (left, top, left + patches * PATCH, top + patches * PATCH)


def cells(window: Box) -> torch.Tensor:
    """Indices of the window's patches in raster order, (n * n,) of 0..195."""
    left, top, right, bottom = (side // PATCH for side in window)
    return (torch.arange(top, bottom)[:, None] * GRID + torch.arange(left, right)).flatten()


def training_scene(rng: random.Random, window: Box = WHOLE) -> Scene:
    """A scene that the test split can never draw."""
    return for_training(lambda: draw_scene(rng, "train", window))


def pixels(scene: Scene, window: Box = WHOLE) -> np.ndarray:
    """(3, 224, 224) float32, or the window's part of it, normalised as the processor does it."""
    return ((np.asarray(render(scene, window), np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)


def stack_labels(labels: list[PatchLabels]) -> dict[str, torch.Tensor]:
    """Field -> (B, 196) long."""
    return {
        name: torch.from_numpy(np.stack([getattr(one, name) for one in labels])).long().flatten(1)
        for name in FIELDS
    }


def features(tower: CLIPVisionModel, images: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
    """(B, 3, 224, 224) -> (B, 197, C): hidden_states[-2], the layer LLaVA reads, without running the last.

    Pictures of n x n patches that are windows of whole ones come with the windows' cells, `where` (B, n * n).
    """
    start = tower.embeddings
    states = start.patch_embedding(images).flatten(2).transpose(1, 2)
    states = torch.cat((start.class_embedding.expand(len(images), 1, -1), states), 1)
    if where is None:
        where = torch.arange(VISUAL).expand(len(images), -1)
    places = torch.cat((torch.zeros_like(where[:, :1]), where + 1), 1)
    states = tower.pre_layrnorm(states + start.position_embedding(places))
    for layer in tower.encoder.layers[:-1]:
        states = layer(states, attention_mask=None)
    return states


class PatchReader(nn.Module):
    """The tower with one linear head a field; the heads are thrown away after training."""

    def __init__(self, tower: CLIPVisionModel) -> None:
        super().__init__()
        self.tower = tower
        width = tower.config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, n + 1) for name, n in FIELDS.items()})
        self.scene_norm = nn.LayerNorm(width)
        self.scene = nn.Linear(width, len(COLOURS) + len(SHAPES) + len(LETTERS))

    def forward(
        self, images: torch.Tensor, where: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        states = features(self.tower, images, where)
        patches = self.norm(states[:, 1:])
        return {name: head(patches) for name, head in self.heads.items()}, self.scene(
            self.scene_norm(states[:, 0])
        )


def scene_targets(labels: dict[str, torch.Tensor]) -> torch.Tensor:
    """(B, 8 + 8 + 26) float: which colours, shapes and letters occur anywhere."""
    parts = []
    for name in ("colour", "shape", "letter"):
        hot = F.one_hot(labels[name].clamp(min=0), FIELDS[name] + 1)[..., 1:]
        parts.append(hot.amax(1))
    return torch.cat(parts, -1).float()


def field_loss(values: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of (B, N, classes) to labels (B, N); an empty patch weighs a fifth, a sliver nothing. Also
    (B, N) bool: which are right."""
    weight = torch.where(target > 0, 1.0, 0.2) * (target != UNSURE)
    values = values.float()
    each = F.cross_entropy(values.flatten(0, 1), target.clamp(min=0).flatten(), reduction="none")
    return (each * weight.flatten()).sum() / weight.sum().clamp(min=1), values.argmax(-1) == target


def loss_of(
    logits: dict[str, torch.Tensor], scene: torch.Tensor, labels: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Sum of the losses of all fields and of the whole scene, and the share right of each."""
    total, correct = torch.zeros(()), {}
    for name, values in logits.items():
        loss, right = field_loss(values, labels[name])
        total = total + loss
        correct[name] = right[labels[name] > 0].float().mean()
        correct[f"{name}_empty"] = right[labels[name] == 0].float().mean()
    targets = scene_targets(labels)
    scene_loss = F.binary_cross_entropy_with_logits(scene.float(), targets)
    correct["scene"] = ((scene > 0) == (targets > 0.5)).float().mean()
    return total + 2 * scene_loss, correct


def new_tower() -> CLIPVisionModel:
    from ..build import vision_config

    tower = CLIPVisionModel(CLIPVisionConfig(**vision_config()))
    # CLIP's own start (0.02) drowns positions in the patches for the first thousands of steps.
    nn.init.normal_(tower.embeddings.position_embedding.weight, std=0.3)
    return tower


def resume(
    reader: nn.Module, optim: torch.optim.Optimizer, out: Path, name: str, start: str | None
) -> dict[str, Any] | None:
    """The state of the phase `name`, with which the reader and its optimiser go on, or None where it only begins: then
    the reader is that of the phase `start`, if there is one."""
    state = common.load(out / f"{name}.pt")
    if state is not None:
        reader.load_state_dict(state["reader"])
        optim.load_state_dict(state["optim"])
    elif start is not None:
        reader.load_state_dict(common.load(out / f"{start}.pt")["reader"], strict=False)
    return state


def train(
    out: Path, minutes: float, window: int = 7, batch: int = 64, rate: float = 2e-3, compiled: bool = True,
    seed: int = 0, name: str = "tower", start: str | None = None,
) -> None:  # fmt: skip
    """Train for `minutes` of wall time in all, resuming from `out/<name>.pt`, or else from phase `start`."""
    torch.manual_seed(seed)
    reader = PatchReader(new_tower())
    reader.tower.set_attn_implementation("eager")  # on a processor its backward pass is twice as fast
    optim = common.optimiser([reader], rate)
    state = resume(reader, optim, out, name, start)

    def contents() -> dict[str, Any]:
        return {"reader": reader.state_dict(), "optim": optim.state_dict()}

    run = common.Run(out, name, minutes, state, contents)
    rng = random.Random(seed * 1_000_003 + run.step)
    forward = torch.compile(reader) if compiled else reader

    for seconds in run.steps():
        common.set_rate(optim, rate * common.schedule(run.step, seconds / (minutes * 60), 100, 0.02))
        windows = [random_window(rng, window) for _ in range(batch)]
        scenes = [training_scene(rng, one) for one in windows]
        images = torch.from_numpy(np.stack(list(map(pixels, scenes, windows))))
        where = torch.stack([cells(one) for one in windows])
        labels = stack_labels([label_patches(scene) for scene in scenes])
        labels = {name: all_patches.gather(1, where) for name, all_patches in labels.items()}
        with torch.autocast("cpu", torch.bfloat16):
            logits, scene = forward(images, where)
        loss, correct = loss_of(logits, scene, labels)
        optim.zero_grad(set_to_none=True)
        loss.backward()
        common.clip_gradients([reader])
        optim.step()
        run.mean.add(loss=loss.detach(), **correct)
