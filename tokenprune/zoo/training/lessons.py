"""What the decoder of `tiny-qwen` is taught with: batches of pages and scenes with their questions.

A lesson is cells with labels, or with pixels too, and a batch of slots. All pictures of a batch have one grid.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

from .. import clips, documents, motion, questions, typesetting
from ..build_qwen import CELL
from ..drawing import GRID, render
from ..pages import Page
from ..questions import Question
from . import slots
from .cells import (
    Labels,
    clip_labels,
    frame_pairs,
    page_labels,
    patches,
    scene_labels,
    stack_labels,
    training_clip,
    training_page,
)
from .reading import CellWords, Decoder, Encoder, Grid, place_loss, shuffle_pick
from .tower import random_window, training_scene

KINDS = (*documents.KINDS, *questions.TRAINING_KINDS, *clips.KINDS)
CLIP: Grid = (motion.FRAMES // 2, motion.SIDE // CELL, motion.SIDE // CELL)

LINES: tuple[Grid, ...] = ((1, 1, 12), (1, 1, 20), (1, 2, 16), (1, 3, 12))
PAGES: tuple[Grid, ...] = (
    (1, 6, 17), (1, 7, 16), (1, 8, 14), (1, 9, 13), (1, 10, 12), (1, 12, 11), (1, 14, 10), (1, 8, 20), (1, 10, 16),
    (1, 12, 14), (1, 9, 21), (1, 16, 12), (1, 11, 18), (1, 13, 18), (1, 16, 16), (1, 12, 22), (1, 15, 19),
)  # fmt: skip
#: Pages are drawn on small grids more often, as in the suite.
PAGE_WEIGHTS = (3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 0.7, 0.5, 0.5, 0.5)


#: What is learnt last is asked most: the places that M-RoPE tells, and what stands beside what.
SCENE_WEIGHTS = slots.WEIGHTS | {"colour": 0.5, "shape": 0.5, "size": 0.4, "read": 0.6, "count": 1.8, "place": 3.0,
                                 "left": 2.0, "nearest": 2.0}  # fmt: skip


@dataclass
class Lesson:
    """`labels`: field -> (B, cells); `pixels`: (B, patches, ...) or None; `slots`: their questions; `focus`: (B, K, 2),
    row and column of what each question is about, -1 where that is no one place."""

    grid: Grid
    labels: Labels
    slots: slots.SlotBatch
    focus: torch.Tensor
    pixels: torch.Tensor | None = None

    def to(self, device: torch.device) -> Lesson:
        labels = {name: value.to(device) for name, value in self.labels.items()}
        batch = slots.SlotBatch(*(t.to(device) for t in vars(self.slots).values()))
        pixels = None if self.pixels is None else self.pixels.to(device)
        return Lesson(self.grid, labels, batch, self.focus.to(device), pixels)


def _focus(rows: list[list[Question]], corners: list[tuple[int, int]] | None = None) -> torch.Tensor:
    """(B, K, 2): the cell of the answer: where a text begins, or the middle of a thing; `corners` are the top left
    cells (column, row) of windows."""
    found = []
    for number, row in enumerate(rows):
        left, top = corners[number] if corners else (0, 0)
        for question in row:
            box = question.boxes[-1] if 0 < len(question.boxes) <= 2 else None
            if question.kind in documents.KINDS:
                box = question.boxes[-1 if question.kind == "value" else 0]
            if box is None:
                found.append((-1, -1))
                continue
            text = question.kind in documents.KINDS or question.kind == "read"
            x, y = (box[0], box[1]) if text else ((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)
            found.append((y // CELL - top, x // CELL - left))
    return torch.tensor(found).view(len(rows), -1, 2)


def _page_questions(page: Page, whole: bool, rng: random.Random) -> list[Question]:
    if whole:
        return documents.ask(page, "page")
    values, lines = documents.ask(page, "value"), documents.ask(page, "line")
    return (
        shuffle_pick(rng, values, 3) + shuffle_pick(rng, lines, 3) if values else shuffle_pick(rng, lines, 6)
    )


def page_lesson(
    rng: random.Random, encoder: Encoder, count: int, grid: Grid, whole: bool, drawn: bool = False
) -> Lesson:
    """`count` pages, each to be transcribed (`whole`) or asked for six lines and values."""
    pages = [training_page(rng, *grid[1:]) for _ in range(count)]
    labels = stack_labels([page_labels(page) for page in pages])
    asked = [_page_questions(page, whole, rng) for page in pages]
    batch = encoder(asked, KINDS)
    return Lesson(
        grid, labels, batch, _focus(asked), patches([typesetting.render(p) for p in pages]) if drawn else None
    )


def draw_reading(
    rng: random.Random, encoder: Encoder, tokens: int, single: bool, drawn: bool = False
) -> Lesson:
    """A lesson of about `tokens` tokens: a line or a few (`single`), or pages."""
    grid = rng.choice(LINES) if single else rng.choices(PAGES, PAGE_WEIGHTS)[0]
    whole = rng.random() < 0.55
    room = (25 if single else 85) if whole else (140 if single else 160)
    return page_lesson(rng, encoder, max(3, tokens // (grid[1] * grid[2] + room)), grid, whole, drawn)


def scene_lesson(
    rng: random.Random, encoder: Encoder, count: int, side: int, asked: int = 0, drawn: bool = False
) -> Lesson:
    """`count` scenes of `side` x `side` cells with `asked` questions each, else as many as pay."""
    asked = asked or (24 if side == GRID else 12)
    windows = [random_window(rng, side) for _ in range(count)]
    scenes = [training_scene(rng, one) for one in windows]
    labels = stack_labels([scene_labels(*pair) for pair in zip(scenes, windows)])
    # Where in the whole picture a thing stands cannot be told from a window.
    kinds = [kind for kind in questions.TRAINING_KINDS if kind != "place" or side == GRID]
    picked = [slots.pick_questions(scene, rng, asked, kinds, SCENE_WEIGHTS) for scene in scenes]
    batch = encoder(picked, KINDS)
    focus = _focus(picked, [(left // CELL, top // CELL) for left, top, _, _ in windows])
    pictures = [render(*pair) for pair in zip(scenes, windows)] if drawn else None
    return Lesson((1, side, side), labels, batch, focus, patches(pictures) if pictures else None)


def _clip_questions(clip: motion.Clip, rng: random.Random) -> list[Question]:
    """The clip's own question and others that it answers as plainly, three in all."""
    own = clips.ask(clip, rng)
    more = [own]
    if own.kind == "order":
        names = {"first": clip.actors[0].name, "last": clip.actors[1].name}
        more = [Question("order", f"what appears {when}?", name, (), ()) for when, name in names.items()]
    elif own.kind == "often":
        text = "how many times does the {} blink?"
        more += [Question("often", text.format(actor.name), "0", (), ()) for actor in clip.actors[1:2]]
    elif own.kind == "before" and len(clip.actors) == 2:
        more += [Question("before", "what was there after the cut?", clip.actors[1].name, (), ())]
    return [own, *(more[i % len(more)] for i in range(2))] if len(more) > 1 else [own] * 3


def clip_lesson(rng: random.Random, encoder: Encoder, count: int, drawn: bool = False) -> Lesson:
    """`count` clips with three questions each; `pixels` are (B * time steps, patches, ...)."""
    made = [training_clip(rng) for _ in range(count)]
    labels = stack_labels([clip_labels(clip) for clip in made])
    batch = encoder([_clip_questions(clip, rng) for clip in made], KINDS)
    pixels = torch.cat([frame_pairs(clips.render(clip)) for clip in made]) if drawn else None
    return Lesson(CLIP, labels, batch, torch.full((count, 3, 2), -1), pixels)


def made_up(
    words: CellWords, model: Qwen2_5_VLTextModel, labels: Labels, noise: float = 0.3, wrong: float = 0.03
) -> torch.Tensor:
    """Visual tokens from labels, as a tower that is nearly right would give them: with noise, and now and then a
    wrong idea of what was read before."""
    labels = dict(labels)
    for name in ("before", "before2"):
        value = labels[name]
        slip = (torch.rand(value.shape, device=value.device) < wrong) & (value > 0)
        labels[name] = torch.where(slip, torch.randint_like(value, 1, typesetting.TURN + 1), value)
    embedding = model.embed_tokens.weight
    visual = words(labels, embedding)
    return visual + noise * embedding.detach().pow(2).mean().sqrt() * torch.randn_like(visual)


def teach(
    model: Qwen2_5_VLTextModel,
    decoder: Decoder,
    visual: torch.Tensor,
    lesson: Lesson,
    words: CellWords,
    place_weight: float = 0.3,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of a lesson and what of it was right, by kind; for pages, of characters too."""
    with torch.autocast(visual.device.type, torch.bfloat16):
        hidden, known = decoder(visual, lesson.grid, lesson.slots)
    loss, right, tokens = slots.answer_loss(hidden, model.embed_tokens.weight, lesson.slots)
    numbers = slots.by_kind(right, lesson.slots.kinds, KINDS)
    name = "clip_tokens" if lesson.grid[0] > 1 else "scene_tokens"
    if lesson.slots.kinds[0, 0] < len(documents.KINDS):
        name = "characters"
    if place_weight:
        lines = lesson.labels["line"]
        lost, found = place_loss(
            words.heads, known, lesson.grid, lines, lesson.focus, lesson.slots, decoder.turn
        )
        loss, numbers = loss + place_weight * lost, {**numbers, **found}
    return loss, {**numbers, name: tokens.item()}
