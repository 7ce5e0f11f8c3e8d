"""Phase `words`: the decoder of `tiny-qwen` learns to read before it can see.

Its visual tokens are made up from the labels of the cells (`CellWords`), with M-RoPE places. Lines come first, then
whole pages; scenes run beside them. Nothing of a picture is drawn, so a processor reads millions of characters an
hour. The tower's last layers are later pulled to these tokens (`sight`).
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from ..drawing import GRID
from . import common, growth
from .lessons import Lesson, clip_lesson, draw_reading, made_up, scene_lesson, teach
from .reading import CellWords, Decoder, Encoder, from_llava, new_text_model


def train(
    out: Path, minutes: float, name: str = "words", layers: int = 16, start: str | None = None, lines: float = 1.0,
    tokens: int = 2500, scenes: int = 4, whole_scenes: float = 0.0, clips: float = 0.0, scene_weight: float = 0.5,
    rate: float = 1e-3, warm: bool = False, seed: int = 1, journal_every: int = 25,
) -> None:  # fmt: skip
    """Train for `minutes`, resuming from `out/<name>.pt`; `start` is a phase to continue, or to grow, from.

    `lines` is the share of lessons of single lines, the rest are pages; `tokens` is about how many a lesson has;
    `scenes` is how many windows of scenes a step has; a share `whole_scenes` of the steps has half as many whole ones
    and a share `clips` has as many clips instead. `warm` begins with the decoder of the shipped `tiny-llava`.
    """
    torch.manual_seed(seed)
    device = common.device()
    state = common.load(out / f"{name}.pt")
    earlier = common.load(out / f"{start}.pt") if state is None and start else state
    if earlier is not None:
        model = growth.grown(growth.read(earlier, new_text_model), layers, new_text_model)
    else:
        model = from_llava() if warm else new_text_model(layers)
    words = CellWords(model.config.hidden_size)
    if earlier is not None:
        words.load_state_dict(earlier["words"], strict=False)
    model, words = model.to(device), words.to(device)
    optim = common.optimiser([model, words], rate)
    if state is not None:
        optim.load_state_dict(state["optim"])

    def contents() -> dict[str, Any]:
        learnt = {"model": model.state_dict(), "words": words.state_dict()}
        return {**learnt, "optim": optim.state_dict(), "layers": layers}

    run = common.Run(
        out, name, minutes, state, contents, journal_every, keep_every=60, mean=common.Means()
    )  # fmt: skip
    decoder, encoder = Decoder(model), Encoder()
    torch.manual_seed(seed * 1_000_003 + run.step)

    def draw(rng: random.Random) -> list[tuple[str, float, Lesson]]:
        single = rng.random() < lines
        found = [("line_" if single else "", 1.0, draw_reading(rng, encoder, tokens, single))]
        if scenes:
            part = rng.random()
            if part < clips:
                lesson = clip_lesson(rng, encoder, scenes)
            elif part < clips + whole_scenes:
                lesson = scene_lesson(rng, encoder, max(2, scenes // 2), GRID)
            else:
                lesson = scene_lesson(rng, encoder, scenes, GRID // 2)
            found.append(("scene_", scene_weight, lesson))
        return found

    lessons = common.drawn(draw, seed * 1_000_003 + run.step)
    for seconds in run.steps():
        common.set_rate(optim, rate * common.schedule(run.step, seconds / (minutes * 60), 100, 0.1))
        optim.zero_grad(set_to_none=True)
        for mark, weight, lesson in next(lessons):
            lesson = lesson.to(device)
            loss, numbers = teach(model, decoder, made_up(words, model, lesson.labels), lesson, words)
            (weight * loss).backward()
            if mark == "line_":
                numbers = {mark + key: value for key, value in numbers.items()}
            run.mean.add(**{f"{mark}loss": loss.item(), **numbers})
        common.clip_gradients([model, words])
        optim.step()
