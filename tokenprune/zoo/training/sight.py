"""Phases `align`, `sight` and `together`: tower and decoder of `tiny-qwen` become one model.

`align` moves the tower only: what it gives for a cell is pulled to the made-up token the decoder learnt from, and its
nearest embedding to the character the cell shows. `sight` then moves the decoder only, on real pages and scenes whose
visual tokens are kept in a pool and met several times. `together` moves both, the tower at a tenth of the rate. A
share of the alignment stays in the loss, so that a cell that shows an A keeps lying near the word "A".
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..build_qwen import new_model
from ..drawing import GRID
from . import common, growth
from .alignment import distance, weights
from .cells import GRIDS, CellReader, Labels, Tower
from .lessons import (
    CLIP,
    LINES,
    PAGE_WEIGHTS,
    PAGES,
    Lesson,
    clip_lesson,
    draw_reading,
    page_lesson,
    scene_lesson,
    teach,
)
from .reading import CellWords, Decoder, Encoder, new_text_model


class Parts(nn.Module):
    """What is trained: the tower, the decoder and the made-up tokens."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.tower = Tower()
        self.language = new_text_model(layers)
        self.words = CellWords(self.language.config.hidden_size)

    @classmethod
    def gather(cls, cells: Path, words: Path, layers: int) -> Parts:
        """From the files of the phases `cells` and `words`; the decoder grows to `layers`."""
        parts = cls(layers)
        reader = CellReader()
        reader.load_state_dict(common.load(cells)["reader"])
        parts.tower.load_state_dict(reader.tower.state_dict())
        state = common.load(words)
        parts.language = growth.grown(growth.read(state, new_text_model), layers, new_text_model)
        parts.words.load_state_dict(state["words"])
        return parts

    @classmethod
    def read(cls, path: Path) -> Parts:
        """From the file of a phase of this module."""
        state = common.load(path)
        parts = cls(int(state["layers"]))
        parts.load_state_dict(state["parts"], strict=False)  # heads came and went
        return parts

    def assemble(self) -> nn.Module:
        """The stock Hugging Face model with these weights, float32."""
        model = new_model(len(self.language.layers))
        model.model.visual.load_state_dict(self.tower.vision.state_dict())
        model.model.language_model.load_state_dict(self.language.state_dict())
        model.tie_weights()
        return model.eval()


def see(tower: Tower, lesson: Lesson) -> torch.Tensor:
    """The visual tokens of a lesson's pictures (B, cells, D); the time steps of a clip are one sequence."""
    with torch.autocast(lesson.pixels.device.type, torch.bfloat16):
        cells = tower(lesson.pixels, *lesson.grid[1:])
    return cells.reshape(len(lesson.labels["char"]), -1, cells.shape[-1])


def alignment(
    cells: torch.Tensor, words: CellWords, embedding: torch.Tensor, labels: Labels
) -> tuple[torch.Tensor, dict[str, float]]:
    """Squared distance to the made-up tokens over their own size, plus the cross-entropy of the character that a
    cell's token lies nearest to; empty cells weigh a fifth, slivers nothing."""
    with torch.no_grad():
        target = words(labels, embedding)
    far = distance(cells, target, weights(labels, "char"))
    written = labels["char"] > 0
    if not written.any():
        return far, {"align": far.item()}
    logits = cells[written] @ embedding[words.char[1:]].detach().T
    wanted = labels["char"][written] - 1
    near = F.cross_entropy(logits, wanted)
    right = (logits.argmax(-1) == wanted).float().mean()
    return far + 0.2 * near, {"align": far.item(), "tied_char": right.item()}


@torch.no_grad()
def fit_merger(parts: Parts, lessons: list[Lesson], ridge: float = 1e-3) -> None:
    """Set the tower's last linear map to the least-squares one onto the made-up tokens: minutes of `align` at once."""
    last, heard = parts.tower.vision.merger.mlp[2], []
    hook = last.register_forward_hook(lambda _, inputs, __: heard.append(inputs[0].float().flatten(0, -2)))
    wanted, weight = [], []
    for lesson in lessons:
        see(parts.tower, lesson)
        wanted.append(parts.words(lesson.labels, parts.language.embed_tokens.weight).flatten(0, 1))
        weight.append(weights(lesson.labels, "char").flatten())
    hook.remove()
    x, y, w = (torch.cat(part).double() for part in (heard, wanted, weight))
    x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
    gram = x.T @ (x * w[:, None])
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solved = torch.linalg.solve(gram, x.T @ (y * w[:, None])).T.float()
    last.weight.copy_(solved[:, :-1])
    last.bias.copy_(solved[:, -1])


def _open(
    out: Path, name: str, layers: int, start: str | None, cells: str, words: str
) -> tuple[Parts, dict | None]:
    state = common.load(out / f"{name}.pt")
    if state is not None:
        parts = Parts(int(state["layers"]))
        parts.load_state_dict(state["parts"])
        return parts, state
    if start is not None:
        return Parts.read(out / f"{start}.pt"), None
    return Parts.gather(out / f"{cells}.pt", out / f"{words}.pt", layers), None


def _loop(
    out: Path, name: str, minutes: float, parts: Parts, state: dict | None, optims: list[torch.optim.Optimizer],
    rates: list[float], moving: list[nn.Module], draw: Callable[[random.Random], Any],
    step_once: Callable[[Iterator[Any], random.Random], dict[str, float]], seed: int, journal_every: int,
) -> None:  # fmt: skip
    """The rates and the optimisers around `step_once`, which takes what it needs of what `draw` draws and leaves
    gradients."""
    if state:
        for optim, saved_optim in zip(optims, state["optims"]):
            optim.load_state_dict(saved_optim)

    def contents() -> dict[str, Any]:
        optimisers = [optim.state_dict() for optim in optims]
        return {"parts": parts.state_dict(), "optims": optimisers, "layers": len(parts.language.layers)}

    run = common.Run(
        out, name, minutes, state, contents, journal_every, keep_every=60, mean=common.Means()
    )  # fmt: skip
    rng = random.Random(seed * 1_000_003 + run.step)
    torch.manual_seed(seed * 1_000_003 + run.step)
    lessons = common.drawn(draw, seed * 1_000_003 + run.step)
    for seconds in run.steps():
        factor = common.schedule(run.step, seconds / (minutes * 60), 50, 0.05)
        for optim, rate in zip(optims, rates):
            common.set_rate(optim, rate * factor)
            optim.zero_grad(set_to_none=True)
        run.mean.add(**step_once(lessons, rng))
        common.clip_gradients(moving)
        for optim in optims:
            optim.step()


def align(
    out: Path, minutes: float, name: str = "align", layers: int = 16, cells: str = "cells", words: str = "words",
    start: str | None = None, shown: int = 1000, wide: float = 0.6, clips: float = 0.25, rate: float = 1e-3,
    seed: int = 2, journal_every: int = 20, fitted: int = 16,
) -> None:  # fmt: skip
    """Train the tower for `minutes` towards the made-up tokens of the phase `words`.

    The pictures of `fitted` steps first set its last linear map, all at once. A step shows about `shown` cells of
    pages and half as many of scenes or, in a share `clips` of the steps, of clips. A share `wide` is whole pages and
    whole scenes; the phase `cells` showed it parts only.
    """
    device = common.device()
    parts, state = _open(out, name, layers, start, cells, words)
    parts.to(device)
    encoder = Encoder()

    def draw(rng: random.Random) -> list[Lesson]:
        whole = rng.random() < wide
        grid = rng.choices(PAGES, PAGE_WEIGHTS)[0] if whole else (1, *rng.choice(GRIDS))
        found = [page_lesson(rng, encoder, max(4, shown // (grid[1] * grid[2])), grid, True, drawn=True)]
        if rng.random() < clips:
            return [*found, clip_lesson(rng, encoder, max(1, shown // 1024), drawn=True)]
        side = GRID if rng.random() < wide else GRID // 2
        return [*found, scene_lesson(rng, encoder, max(2, shown // 2 // side**2), side, 1, drawn=True)]

    if state is None and start is None:
        first = random.Random(seed)
        fit_merger(parts, [lesson.to(device) for _ in range(fitted) for lesson in draw(first)])

    def step_once(lessons: Iterator[list[Lesson]], _: random.Random) -> dict[str, float]:
        numbers = {}
        for lesson in next(lessons):
            lesson = lesson.to(device)
            seen = see(parts.tower, lesson)
            loss, found = alignment(seen, parts.words, parts.language.embed_tokens.weight, lesson.labels)
            loss.backward()
            marks = {CLIP: "clip_", (1, GRID, GRID): "scene_", (1, GRID // 2, GRID // 2): "part_"}
            mark = marks.get(lesson.grid, "page_" if lesson.grid in PAGES else "")
            numbers |= {mark + key: value for key, value in found.items()}
        return numbers

    optim = common.optimiser([parts.tower], rate)
    _loop(
        out, name, minutes, parts, state, [optim], [rate], [parts.tower], draw, step_once, seed, journal_every
    )


def train(
    out: Path, minutes: float, name: str = "sight", layers: int = 16, start: str | None = None,
    cells: str = "cells", words: str = "words", tokens: int = 2200, lines: float = 0.08, clips: float = 0.35,
    rate: float = 4e-4, tower_rate: float = 0.0, fresh: float = 0.45, pool: int = 60, scene_weight: float = 0.5,
    align_weight: float = 0.2, films: int | None = None,
    pictures: int | None = None, seed: int = 3, journal_every: int = 20,
) -> None:  # fmt: skip
    """Train for `minutes` on real pictures; a step is a lesson of about `tokens` tokens of pages, or in a share
    `lines` of single lines, and half as much of scenes, or in a share `clips` of clips; `pictures` and `films` are how
    many of these, where another number is wanted.

    With `tower_rate` 0 the tower stands still, and only a share `fresh` of the steps draws anew; the others take from
    the `pool` of those before.
    """
    device = common.device()
    parts, state = _open(out, name, layers, start, cells, words)
    parts.to(device)
    heads, language = parts.words.heads, parts.language
    moving: list[nn.Module] = [language, heads] + ([parts.tower] if tower_rate else [])
    optims, rates = [common.optimiser([language, heads], rate)], [rate]
    if tower_rate:
        optims.append(common.optimiser([parts.tower], tower_rate))
        rates.append(tower_rate)
    decoder, encoder = Decoder(language), Encoder()
    known: list[list[tuple[Lesson, torch.Tensor]]] = []

    def draw(rng: random.Random) -> list[Lesson]:
        reading = draw_reading(rng, encoder, tokens, rng.random() < lines, drawn=True)
        if rng.random() < clips:
            return [reading, clip_lesson(rng, encoder, films or max(1, tokens // 1100), drawn=True)]
        return [reading, scene_lesson(rng, encoder, pictures or max(1, tokens // 1000), GRID, drawn=True)]

    def step_once(lessons: Iterator[list[Lesson]], rng: random.Random) -> dict[str, float]:
        if tower_rate or len(known) < 8 or rng.random() < fresh:
            new = [lesson.to(device) for lesson in next(lessons)]
            with torch.set_grad_enabled(bool(tower_rate)):
                pair = [(lesson, see(parts.tower, lesson)) for lesson in new]
            if not tower_rate:
                known.append(pair)
                del known[:-pool]
                for lesson in new:
                    lesson.pixels = None
        else:
            pair = rng.choice(known)
        total, numbers = torch.zeros((), device=device), {}
        for (lesson, seen), weight in zip(pair, (1.0, scene_weight)):
            loss, found = teach(language, decoder, seen, lesson, parts.words)
            if tower_rate:
                near, more = alignment(seen, parts.words, language.embed_tokens.weight, lesson.labels)
                loss, found = loss + align_weight * near, found | more
            total = total + weight * loss
            mark = {CLIP: "clip_", (1, GRID, GRID): "scene_"}.get(
                lesson.grid, "line_" if lesson.grid in LINES else ""
            )
            numbers |= {mark + key: value for key, value in {"loss": loss.item(), **found}.items()}
        total.backward()
        return numbers

    _loop(out, name, minutes, parts, state, optims, rates, moving, draw, step_once, seed, journal_every)
