"""Phase `language`: the decoder learns to answer before it can see.

Its visual tokens are made up: for each patch, the sum of the embeddings of the words for what the patch
shows (" red" + " circle" + " small", or a letter), plus a learnt row, column and centre, plus noise. What it
learns this way (binding, counting, spelling, places) carries over once the projector puts real patches
where these made-up tokens are. It also ties the two spaces: a patch that shows a circle lies near the
word " circle", which is what text-guided pruning relies on.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel

from ..build import build_tokenizer, text_config
from ..drawing import label_patches
from ..vocabulary import COLOURS, LETTERS, SHAPES, SIZES
from ..weights import start_language
from . import common, growth
from .slots import Encoder, SlotBatch, SlotDecoder, answer_loss, by_kind, encode
from .tower import RELATIONS, cells, random_window, stack_labels, training_scene


def smooth_places(width: int, size: float = 0.5, waves: int = 3) -> torch.Tensor:
    """(14, width): half waves along a side of the grid, each in a direction of its own.

    Neighbouring rows then lie near each other, so that "left of" and "nearest" can be learnt as shifts instead of
    as a table of all pairs of places.
    """
    steps = (torch.arange(14.0) + 0.5) * math.pi / 14
    parts = [wave(k * steps) for k in range(1, waves + 1) for wave in (torch.sin, torch.cos)]
    directions = nn.functional.normalize(torch.randn(len(parts), width), dim=-1)
    return size * torch.stack(parts, 1) @ directions


class WordPatches(nn.Module):
    """Patch labels -> the visual tokens a perfect tower and projector would give."""

    def __init__(self, width: int) -> None:
        super().__init__()
        tokenizer = build_tokenizer()
        ids = {
            "colour": [f" {name}" for name in COLOURS],
            "shape": [f" {name}" for name in SHAPES],
            "size": [f" {name}" for name in SIZES],
            "letter": list(LETTERS),
        }
        for name, tokens in ids.items():
            table = torch.tensor([0, *tokenizer.convert_tokens_to_ids(tokens)])
            self.register_buffer(name, table, persistent=False)
        self.fields = tuple(ids)
        self.embed_neighbours = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(count + 1, width) * 0.06) for name, count in RELATIONS.items()}
        )
        self.position_rows = nn.Parameter(torch.randn(14, width) * 0.07)
        self.position_columns = nn.Parameter(torch.randn(14, width) * 0.07)
        self.embed_centre = nn.Parameter(torch.randn(width) * 0.1)
        self.embed_empty = nn.Parameter(torch.randn(width) * 0.05)

    def forward(
        self, labels: dict[str, torch.Tensor], where: torch.Tensor, embedding: torch.Tensor, drop: float = 0.0
    ) -> torch.Tensor:
        """Labels (B, N) of the cells `where` (B, N) and word embeddings (V, D) -> (B, N, D).

        `drop` loses that share of the words.
        """
        total = (self.position_rows[:, None] + self.position_columns).flatten(0, 1)[where]
        empty = torch.ones_like(labels["colour"], dtype=torch.bool)
        for name in self.fields:
            shown = labels[name] > 0
            empty &= ~shown
            if drop:
                # A thing's centre is always seen well; its outskirts may not be.
                shown = shown & ((torch.rand(shown.shape) >= drop) | (labels["centre"] > 0))
            words = embedding[getattr(self, name)[labels[name].clamp(min=0)]]
            total = total + words * shown[..., None]
        for name, table in self.embed_neighbours.items():
            shown = labels[name] > 0
            total = total + table[labels[name].clamp(min=0)] * shown[..., None]
        total = total + self.embed_centre * (labels["centre"] > 0)[..., None]
        return total + self.embed_empty * empty[..., None]


def new_language(layers: int) -> LlamaModel:
    model = LlamaModel(LlamaConfig(**text_config(layers)))
    start_language(model)
    return model


def grow(model: LlamaModel, layers: int) -> LlamaModel:
    """Deeper, nearly the same function."""
    return growth.grow(model, new_language(layers))


def train(
    out: Path, minutes: float, layers: int = 4, start: str | None = None, window: int = 7, batch: int = 32,
    rate: float = 2e-3, name: str = "language", compiled: bool = True, seed: int = 1, add_smooth: bool = False,
) -> None:  # fmt: skip
    """Train for `minutes`, resuming from `out/<name>.pt`; `start` is a phase to continue, or to grow, from."""
    team = common.Team()
    torch.manual_seed(seed)
    model = new_language(layers)
    patches = WordPatches(model.config.hidden_size)
    state = common.load(out / f"{name}.pt")
    if state is None and start is not None:
        earlier = common.load(out / f"{start}.pt")
        model = grow(growth.read(earlier, new_language), layers)
        patches.load_state_dict(earlier["patches"], strict=False)
        if add_smooth:
            with torch.no_grad():
                patches.position_rows += smooth_places(model.config.hidden_size)
                patches.position_columns += smooth_places(model.config.hidden_size)
    optim = common.optimiser([model, patches], rate)
    if state is not None:
        model.load_state_dict(state["model"])
        patches.load_state_dict(state["patches"])
        optim.load_state_dict(state["optim"])

    def contents() -> dict[str, Any]:
        learnt = {"model": model.state_dict(), "patches": patches.state_dict()}
        return {**learnt, "optim": optim.state_dict(), "layers": layers}

    run = common.Run(out, name, minutes, state, contents, team=team)
    decoder, encoder = SlotDecoder(model, visual=window**2, compiled=compiled), Encoder(build_tokenizer())
    rng = random.Random((seed * 1_000_003 + run.step) * 64 + team.rank)
    torch.manual_seed((seed * 1_000_003 + run.step) * 64 + team.rank)
    weights = [*model.parameters(), *patches.parameters()]

    for seconds in run.steps():
        common.set_rate(optim, rate * common.schedule(run.step, seconds / (minutes * 60), 200, 0.1))
        windows = [random_window(rng, window) for _ in range(batch)]
        scenes = [training_scene(rng, one) for one in windows]
        questions = encode(scenes, encoder, rng)
        labels = stack_labels([label_patches(scene) for scene in scenes])
        where = torch.stack([cells(one) for one in windows])
        loss, right = step_once(model, patches, decoder, labels, where, questions)
        optim.zero_grad(set_to_none=True)
        loss.backward()
        team.average_gradients(weights)
        nn.utils.clip_grad_norm_(weights, 1.0)
        optim.step()
        run.mean.add(loss=loss.detach(), all=right.float().mean(), **by_kind(right, questions.kinds))
    team.close()


def step_once(
    model: LlamaModel,
    patches: WordPatches,
    decoder: SlotDecoder,
    labels: dict[str, torch.Tensor],
    where: torch.Tensor,
    questions: SlotBatch,
) -> tuple[torch.Tensor, torch.Tensor]:
    embedding = model.embed_tokens.weight
    labels = {name: whole.gather(1, where) for name, whole in labels.items()}
    visual = patches(labels, where, embedding, drop=0.1)
    noise = 0.3 * embedding.detach().pow(2).mean().sqrt()
    visual = visual + noise * torch.randn_like(visual)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = decoder(visual, questions)
    loss, right, _ = answer_loss(hidden, embedding, questions)
    return loss, right
