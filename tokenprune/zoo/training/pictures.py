"""Phases `align` and `pictures`: tower, projector and decoder become one model.

`align` moves nothing but the projector: its output for a patch is pulled to the made-up token the decoder
learnt from. `pictures` then answers questions about real pictures, first with the tower frozen, at last all
together. A small share of the alignment stays in the loss, so that a patch keeps lying near its words; a share of
the patch labels stays too while the tower moves, so that it does not forget them.

With `RANK` and `WORLD_SIZE` in the environment, processes of one machine share the work: gradients are averaged.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from ..build import build_tokenizer, llava_config, new_model
from ..drawing import label_patches
from . import common, growth
from .alignment import distance, weights
from .language import WordPatches, new_language
from .slots import Encoder, SlotBatch, SlotDecoder, answer_loss, by_kind, encode
from .tower import (
    PatchReader,
    cells,
    features,
    loss_of,
    new_tower,
    pixels,
    random_window,
    stack_labels,
    training_scene,
)


class Parts(nn.Module):
    """What is trained: the tower with its label heads, the projector, the decoder, the made-up tokens."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.reader = PatchReader(new_tower())
        self.reader.tower.set_attn_implementation("eager")
        self.projector = LlavaMultiModalProjector(llava_config())
        self.language = new_language(layers)
        self.words = WordPatches(self.language.config.hidden_size)
        for linear in (self.projector.linear_1, self.projector.linear_2):
            nn.init.normal_(linear.weight, std=linear.weight.shape[1] ** -0.5)
            nn.init.zeros_(linear.bias)

    @classmethod
    def gather(cls, tower: Path, language: Path, layers: int) -> Parts:
        """From the files of the phases `tower` and `language`; the decoder grows to `layers`."""
        parts = cls(layers)
        parts.reader.load_state_dict(common.load(tower)["reader"])
        state = common.load(language)
        parts.language = growth.grown(growth.read(state, new_language), layers, new_language)
        parts.words.load_state_dict(state["patches"])
        return parts

    @classmethod
    def read(cls, path: Path) -> Parts:
        """From the file of a phase of this module."""
        state = common.load(path)
        parts = cls(int(state["layers"]))
        parts.load_state_dict(state["parts"])
        return parts

    def assemble(self) -> nn.Module:
        """The stock Hugging Face model with these weights, float32."""
        model = new_model(text=self.language.config.to_dict())
        model.model.vision_tower.load_state_dict(self.reader.tower.state_dict())
        model.model.multi_modal_projector.load_state_dict(self.projector.state_dict())
        model.model.language_model.load_state_dict(self.language.state_dict())
        model.tie_weights()
        return model.eval()


@torch.no_grad()
def set_scale(parts: Parts, item: Batch) -> None:
    """Fit the fresh projector's scale to what comes in and to what must go out, which saves it a thousand steps."""
    states = features(parts.reader.tower, item.images, item.where)[:, 1:]
    target = parts.words(item.labels, item.where, parts.language.embed_tokens.weight)
    parts.projector.linear_1.weight.div_(states.pow(2).mean().sqrt())
    parts.projector.linear_2.weight.mul_(
        target.pow(2).mean().sqrt() / parts.projector(states).pow(2).mean().sqrt()
    )


@dataclass
class Batch:
    """Pictures (B, 3, side, side) with the labels (B, N) of their cells `where` (B, N), and their questions."""

    images: torch.Tensor
    labels: dict[str, torch.Tensor]
    where: torch.Tensor
    questions: SlotBatch


def draw_batch(size: int, window: int, rng: random.Random, encoder: Encoder) -> Batch:
    windows = [random_window(rng, window) for _ in range(size)]
    scenes = [training_scene(rng, one) for one in windows]
    where = torch.stack([cells(one) for one in windows])
    labels = stack_labels([label_patches(scene) for scene in scenes])
    labels = {name: whole.gather(1, where) for name, whole in labels.items()}
    images = torch.from_numpy(np.stack(list(map(pixels, scenes, windows))))
    return Batch(images, labels, where, encode(scenes, encoder, rng))


def train(
    out: Path, minutes: float, name: str = "pictures", layers: int = 16, tower: str = "tower14",
    language: str = "language14", start: str | None = None, align_minutes: float = 3.0, window: int = 14,
    batch: int = 16, rate: float = 1e-3, tower_rate: float = 0.0, align_weight: float = 0.1,
    label_weight: float = 0.1, compiled: bool = True, seed: int = 2, journal_every: int = 20,
) -> None:  # fmt: skip
    """Train for `align_minutes` the projector alone, then for `minutes` the rest; resumes from `out/<name>.pt`.

    `start` continues from another `pictures` phase instead of gathering `tower` and `language`.
    """
    team = common.Team()
    state = common.load(out / f"{name}.pt")
    if state is None and start is not None:
        parts = Parts.read(out / f"{start}.pt")
        parts.language = growth.grown(parts.language, layers, new_language)
        align_minutes = 0.0
    elif state is None:
        torch.manual_seed(seed)  # the same projector in every process
        parts = Parts.gather(out / f"{tower}.pt", out / f"{language}.pt", layers)
        set_scale(parts, draw_batch(16, window, random.Random(seed), Encoder(build_tokenizer())))
    else:
        parts = Parts(layers)
        parts.load_state_dict(state["parts"])
    moving = tower_rate > 0
    parts.reader.requires_grad_(moving)
    parts.words.requires_grad_(False)
    reader_modules = [parts.reader] if moving else []
    optim = common.optimiser([parts.projector, parts.language], rate)
    slow = common.optimiser(reader_modules, tower_rate) if moving else None
    if state is not None:
        optim.load_state_dict(state["optim"])

    def contents() -> dict[str, Any]:
        return {"parts": parts.state_dict(), "optim": optim.state_dict(), "layers": layers}

    run = common.Run(out, name, align_minutes + minutes, state, contents, journal_every, team=team)
    decoder = SlotDecoder(parts.language, visual=window**2, compiled=compiled)
    see = torch.compile(features, dynamic=False) if compiled else features
    encoder, rng = Encoder(build_tokenizer()), random.Random((seed * 1_000_003 + run.step) * 64 + team.rank)
    torch.manual_seed(seed + team.rank)
    trained = [
        w for group in (optim.param_groups + (slow.param_groups if slow else [])) for w in group["params"]
    ]

    for seconds in run.steps():
        aligning = seconds < 60 * align_minutes
        share = max(0.0, (seconds - 60 * align_minutes) / (60 * minutes))
        factor = 1.0 if aligning else common.cosine(int(share * 1000), 1000, 40, 0.03)
        common.set_rate(optim, rate * factor)
        item = draw_batch(batch, window, rng, encoder)
        numbers: dict[str, torch.Tensor | float] = {}
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(moving and not aligning):
                states = see(parts.reader.tower, item.images, item.where)
            visual = parts.projector(states[:, 1:])
        with torch.no_grad():
            target = parts.words(item.labels, item.where, parts.language.embed_tokens.weight)
        near = distance(visual, target, weights(item.labels, "letter"))
        loss = near if aligning else align_weight * near
        numbers["align"] = near.detach()
        if not aligning:
            with torch.autocast("cpu", torch.bfloat16):
                hidden = decoder(visual.float(), item.questions)
            answer, right, _ = answer_loss(hidden, parts.language.embed_tokens.weight, item.questions)
            loss = loss + answer
            numbers.update(
                answer=answer.detach(), all=right.float().mean(), **by_kind(right, item.questions.kinds)
            )
            if moving:
                patches = parts.reader.norm(states[:, 1:].float())
                logits = {key: head(patches) for key, head in parts.reader.heads.items()}
                scene = parts.reader.scene(parts.reader.scene_norm(states[:, 0].float()))
                labelled, _ = loss_of(logits, scene, item.labels)
                loss = loss + label_weight * labelled
                numbers["labels"] = labelled.detach()
        optim.zero_grad(set_to_none=True)
        if slow:
            slow.zero_grad(set_to_none=True)
            common.set_rate(slow, tower_rate * factor)
        loss.backward()
        team.average_gradients(trained)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optim.step()
        if slow and not aligning:
            slow.step()
        run.mean.add(**numbers)
    team.close()
