"""Phase `craters`: a plain timm ViT learns to say the same of the same ground, patch by patch.

Two pictures of one ground, under other suns and from other distances, are drawn so that it is known which patch of
one shows what a patch of the other shows. A patch has to find its partner among the patches of all pictures of the
batch (InfoNCE over cosines), and the class token its partner among the class tokens. There are no labels: one name
for 196 patches would teach a tower this small very slowly.
"""

from __future__ import annotations

import datetime
import json
import logging
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..craters import CONTEXTS, PAIRS, gallery_view, query_view, suite
from ..splits import for_training
from ..terrain import Frame, Terrain, View, draw_terrain, heights, picture_of
from ..vit import GRID, MEAN, PATCH, STD, make_tower, save_tower
from ..weights import start as start_weights
from . import common
from .relief import make_head, relief, relief_loss

log = logging.getLogger(__name__)

FINE = 320
"""Heights of a ground, to a side."""
WIDEST = 3.9
"""Radii from a crater's middle to what the widest view of it shows."""
TEMPERATURE = 0.07
LATE_TEMPERATURE = 0.02
WEIGHTS = {"patches": 1.0, "late": 0.0, "class": 0.3, "relief": 3.0}
"""Of the losses; a phase may have its own."""


def draw_view(rng: random.Random, crater: int) -> View:
    """A gallery picture in a third of the cases, else a query."""
    if rng.random() < 1 / 3:
        return gallery_view(rng, crater, rng.choice(list(CONTEXTS.values())))
    return query_view(rng, crater)


def draw_pair(rng: random.Random, terrain: Terrain, window: int) -> list[tuple[View, Frame]]:
    """Two views of one ground and what they show: about the same place.

    With `window` < 14 these are squares of so many patches out of whole pictures.
    """
    crater = rng.randrange(terrain.catalogued)
    views = [draw_view(rng, crater) for _ in range(2)]
    frames = [view.frame(terrain) for view in views]
    if window < GRID:
        share = window / GRID
        free = (1 - share) * min(half for _, _, half, _ in frames)
        middle = terrain.craters[crater]
        x, y = (at + rng.uniform(-free, free) for at in (middle.x, middle.y))
        frames = [
            (
                x + rng.uniform(-0.2, 0.2) * half * share,
                y + rng.uniform(-0.2, 0.2) * half * share,
                half * share,
                turn,
            )
            for _, _, half, turn in frames
        ]
    return list(zip(views, frames))


def around(terrain: Terrain) -> Frame:
    """A square, not turned, that holds whatever a view can show."""
    seen = [(c.x, c.y, WIDEST * c.radius) for c in terrain.craters[: terrain.catalogued]]
    left, right = min(x - r for x, _, r in seen), max(x + r for x, _, r in seen)
    top, bottom = min(y - r for _, y, r in seen), max(y + r for _, y, r in seen)
    return (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2, 0.0


def partners(first: Frame, second: Frame, n: int) -> np.ndarray:
    """(n * n, n * n) shares: of each patch of the first frame in those of the second; rows of zeros lie outside."""
    at = (np.arange(n) + 0.5) / n * 2 - 1
    u, v = (axis.ravel() * first[2] for axis in np.meshgrid(at, at))
    cos, sin = math.cos(first[3]), math.sin(first[3])
    x, y = first[0] + cos * u - sin * v - second[0], first[1] + sin * u + cos * v - second[1]
    cos, sin = math.cos(second[3]), math.sin(second[3])
    column, row = ((w / second[2] + 1) / 2 * n - 0.5 for w in (cos * x + sin * y, -sin * x + cos * y))
    shares = np.zeros((n * n, n * n), np.float32)
    each = np.arange(n * n)
    most = (n - 1) / 2 + 1e-6
    inside = (np.abs(column - (n - 1) / 2) <= most) & (np.abs(row - (n - 1) / 2) <= most)
    left, top = (np.clip(np.floor(w).astype(int), 0, n - 2) for w in (column, row))
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dx - (column - left)) * np.abs(1 - dy - (row - top))
            shares[each, (top + dy) * n + left + dx] = share * inside
    return shares


@dataclass
class Pool:
    """Pairs to train on. Drawing is what takes longest: heights are drawn once for many pairs, which are cut from them,
    and a pair is shown several times, each time among others."""

    rng: random.Random
    window: int
    grounds: int = 24
    pairs: int = 192
    _grounds: list[tuple[Terrain, np.ndarray, Frame]] = field(default_factory=list)
    _pairs: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def draw_ground(self) -> None:
        """One more, in the place of the oldest."""
        terrain = for_training(lambda: draw_terrain(self.rng, PAIRS))
        whole = around(terrain)
        self._grounds = [*self._grounds, (terrain, heights(terrain, whole, FINE), whole)][-self.grounds :]

    def draw_pairs(self, count: int) -> None:
        """`count` more, in the places of the oldest."""
        for _ in range(count):
            terrain, height, whole = self.rng.choice(self._grounds)
            found = draw_pair(self.rng, terrain, self.window)
            side = self.window * PATCH
            pictures = [picture_of(terrain, view, frame, side, (height, whole)) for view, frame in found]
            frames = [frame for _, frame in found]
            shares = [partners(*frames, self.window), partners(*frames[::-1], self.window)]
            ground = torch.stack([relief(height, whole, frame, self.window) for frame in frames])
            self._pairs.append(
                (torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(shares)), ground)
            )
        self._pairs = self._pairs[-self.pairs :]

    def batch(self, count: int, fresh: int) -> tuple[Tensor, Tensor, Tensor]:
        """(2 B, 3, h, w) pictures, the first views and then the second ones; (2, B, N, N) partners both ways;
        (2 B, N, 85) the relief under their patches.

        `fresh` pairs are new; every second time so is a ground.
        """
        if not self._grounds or self.rng.random() < 0.5:
            self.draw_ground()
        self.draw_pairs(fresh if len(self._pairs) >= count else count)
        chosen = self.rng.sample(self._pairs, count)
        pixels, shares, ground = (torch.stack(part, 1) for part in zip(*chosen))
        pixels = (pixels.flatten(0, 1).float() / 255 - MEAN) / STD
        return pixels[:, None].expand(-1, 3, -1, -1), shares, ground.flatten(0, 1)


def start_positions(n: int, width: int) -> Tensor:
    """(1, 1 + n * n, width): waves along x and y of 3 to 2 n patches. Which patches lie side by side is what a tower
    from random positions finds out last, and all of relief is in the neighbours."""
    waves = math.tau / (3 * (2 * n / 3) ** torch.linspace(0, 1, width // 4))
    turns = torch.arange(n)[:, None] * waves
    axis = torch.cat((turns.sin(), turns.cos()), 1)
    grid = torch.cat((axis[:, None].expand(-1, n, -1), axis.expand(n, -1, -1)), 2)
    return torch.cat((torch.zeros(1, width), grid.flatten(0, 1)))[None]


def tokens_of(model: nn.Module, pixels: Tensor, cells: Tensor | None = None) -> Tensor:
    """(B, 1 + N, D) of whole pictures, or of windows that lie on `cells` (B, N) of the grid."""
    tower: Any = model
    if cells is None:
        return tower.forward_features(pixels)
    x = tower.patch_embed.proj(pixels).flatten(2).transpose(1, 2)
    x = x + tower.pos_embed[0, 1:][cells]
    first = (tower.cls_token + tower.pos_embed[:, :1]).expand(len(x), -1, -1)
    return tower.norm(tower.blocks(torch.cat((first, x), 1)))


def draw_cells(rng: random.Random, count: int, window: int) -> Tensor | None:
    """(count, N) of the grid: one square for each picture, anywhere."""
    if window == GRID:
        return None
    corner = torch.tensor([[rng.randint(0, GRID - window) for _ in range(2)] for _ in range(count)])
    inner = torch.arange(window)[:, None] * GRID + torch.arange(window)
    return (corner[:, 0] * GRID + corner[:, 1])[:, None] + inner.flatten()


def patch_loss(a: Tensor, b: Tensor, shares: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Patches (B, N, D) of `a` look for their partners among all patches of `b`; at most `most` of each picture."""
    pairs, n, width = a.shape
    pick = torch.rand(pairs, n, generator=generator).argsort(1)[:, :most]
    chosen = a.gather(1, pick[..., None].expand(-1, -1, width)).flatten(0, 1)
    logits = chosen @ b.flatten(0, 1).T / TEMPERATURE
    wanted = shares.gather(1, pick[..., None].expand(-1, -1, n))  # (B, most, N) inside the partner picture
    own = logits.view(pairs, -1, pairs, n)[torch.arange(pairs), :, torch.arange(pairs)]
    weight = wanted.sum(-1)
    each = weight * logits.logsumexp(-1).view(pairs, -1) - (wanted * own).sum(-1)
    return each.sum() / weight.sum().clamp_min(1)


def late_loss(a: Tensor, b: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Pictures of `a` look for their partners by late interaction, as they are ranked later: the mean over patches
    (at most `most` of each) of the best cosine in a picture of `b`."""
    pick = torch.randperm(a.shape[1], generator=generator)[:most]
    best = torch.einsum("ind,jmd->injm", a[:, pick], b).amax(3).mean(1)
    return F.cross_entropy(best / LATE_TEMPERATURE, torch.arange(len(a)))


def loss_of(tokens: Tensor, shares: Tensor, most: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Of (2 B, 1 + N, D) tokens and (2, B, N, N) partners: what patches, late interaction and class tokens lose."""
    first, second = F.normalize(tokens.float(), dim=-1).chunk(2)
    patches = [(first[:, 1:], second[:, 1:]), (second[:, 1:], first[:, 1:])]
    dense = sum(patch_loss(a, b, s, most, generator) for (a, b), s in zip(patches, shares)) / 2
    logits = first[:, 0] @ second[:, 0].T / TEMPERATURE
    target = torch.arange(len(logits))
    whole = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    late = sum(late_loss(a, b, most, generator) for a, b in patches) / 2
    return {"patches": dense, "late": late, "class": whole}  # type: ignore[dict-item]


@torch.no_grad()
def validate(
    model: nn.Module,
    split: str = "train",
    identities: int = 64,
    asked: int = 24,
    seed: int = 9,
    each: int = 2,
) -> dict[str, float]:
    """Mean average precision of the class token and of late interaction, with every `each`-th query."""
    found = suite(split, identities, asked, seed)
    queries = found.queries[::each]

    def encoded(pictures: Any) -> Tensor:
        pixels = torch.from_numpy(np.stack([np.asarray(p.image) for p in pictures])).permute(0, 3, 1, 2)
        parts = ((pixels.float() / 255 - MEAN) / STD).split(32)
        return F.normalize(torch.cat([tokens_of(model, part) for part in parts]), dim=-1)

    model.eval()
    gallery, asking = encoded(found.gallery), encoded(queries)
    model.train()
    right = torch.tensor([[g.crater in q.relevant for g in found.gallery] for q in queries])
    late = torch.stack([(q[1:] @ gallery[:, 1:].transpose(1, 2)).amax(2).mean(1) for q in asking])
    scores = {"class": asking[:, 0] @ gallery[:, 0].T, "late": late}
    out = {}
    for name, score in scores.items():
        hit = right.gather(1, score.argsort(dim=1, descending=True, stable=True)).float()
        precision = hit.cumsum(1) / torch.arange(1, hit.shape[1] + 1)
        out[f"map_{name}"] = ((precision * hit).sum(1) / hit.sum(1)).mean().item()
    return out


def export(name: str, recipe: Any, out: Path, folder: Path) -> None:
    """Write the weights, the log and a card with what the tower reaches on ground it has never seen."""
    from ..train import thin_log

    state = common.load(out / f"{recipe.phases[-1].name}.pt")
    if state is None:
        raise SystemExit(f"{out}: the phases come before the export")
    model = make_tower()
    model.load_state_dict(state["model"])
    save_tower(model, folder)
    thin_log(out / "log.jsonl", folder / "training_log.jsonl", recipe.thin)
    measured = {"split": "test", "identities": 200, "asked": 40, "seed": 0}
    scores = validate(model.half().float(), **measured, each=1)
    card = {
        "name": name,
        "version": recipe.version,
        "date": datetime.date.today().isoformat(),
        "recipe": f"python -m tokenprune.zoo.train {name}",
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "suite": {**measured, "hash": suite(*measured.values()).hash()},
        "scores": {key: round(value, 4) for key, value in scores.items()},
    }
    (folder / "tokenprune.json").write_text(json.dumps(card, indent=2) + "\n")


def train(
    out: Path,
    name: str,
    minutes: float,
    rate: float,
    batch: int = 16,
    window: int = GRID,
    start: str | None = None,
    most: int = 49,
    fresh: int = 4,
    seed: int = 1,
    weights: Mapping[str, float] = WEIGHTS,
) -> None:
    """`batch` pairs a step, windows of `window` patches a side; at most `most` patches of each picture ask;
    `fresh` of the pairs are new."""
    torch.manual_seed(seed)
    model = make_tower()
    start_weights(model, len(model.blocks), ("attn.proj.weight", "fc2.weight"))
    model.pos_embed.data.copy_(start_positions(GRID, model.embed_dim))
    state = common.load(out / f"{name}.pt")
    before = state or (common.load(out / f"{start}.pt") if start else None)
    head = make_head(model.embed_dim)
    if before:
        model.load_state_dict(before["model"])
        head.load_state_dict(before["head"])
    optim = common.optimiser([model, head], rate)
    if state:
        optim.load_state_dict(state["optim"])
    run = common.Run(
        out, name, minutes, state,
        lambda: {"model": model.state_dict(), "head": head.state_dict(), "optim": optim.state_dict()},
        journal_every=25, mean=common.Means(),
    )  # fmt: skip
    rng = random.Random(f"{seed}/{run.step}")
    pool = Pool(rng, window)
    generator = torch.Generator().manual_seed(seed + run.step)
    model.train()
    for seconds in run.steps():
        common.set_rate(optim, rate * common.schedule(run.step, seconds / (60 * minutes), 30, 0.03))
        pixels, shares, ground = pool.batch(batch, fresh)
        tokens = tokens_of(model, pixels, draw_cells(rng, 2 * batch, window))
        losses = loss_of(tokens, shares, most, generator)
        losses["relief"] = relief_loss(head, tokens[:, 1:], ground)
        optim.zero_grad()
        sum(weight * losses[name] for name, weight in weights.items()).backward()  # type: ignore[union-attr]
        common.clip_gradients([model, head])
        optim.step()
        run.mean.add(**{key: value.detach() for key, value in losses.items()})
        if run.step % 400 == 399:
            run.mean.add(**validate(model))
    log.info("%s: %s", name, validate(model))
