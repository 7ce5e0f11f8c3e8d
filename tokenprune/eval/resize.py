"""The `resize` and `frames` rows: fewer visual tokens the ordinary way, from a smaller picture or fewer frames."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from ..budget import count
from ..chat import Chat, Medium
from ..errors import InputError, TokenPruneError, UnsupportedModelError
from ..hooks.parts import Parts, find_parts
from ..media import Clip
from .medium import fewer, resized, scaled, size_of

SHRINK = 0.97
"""Each try is this much smaller than the one before."""
WIDEST = 4 / 3
"""How far a small grid's cells may be from the picture's own proportions."""


class Resizer:
    """Pictures and clips made small enough for a budget.

    A processor that keeps a picture's size (Qwen, Pixtral) is given a smaller one. A tower of one size (CLIP, SigLIP)
    gets one of fewer patches, with its position embeddings interpolated as transformers does it.
    """

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.parts: Parts = find_parts(chat.model)
        self._fixed: bool | None = None

    def visual(self, inputs: dict[str, Any]) -> list[int]:
        """Visual tokens of each row."""
        ids, total = inputs["input_ids"], None
        for token in self.parts.placeholders.values():
            here = (ids == token).sum(1)
            total = here if total is None else total + here
        assert total is not None
        return total.tolist()

    def decide(self, images: Sequence[Medium], questions: Sequence[str]) -> None:
        """Learn from these pictures which way the model takes; a run asks its first one, also when it is resumed."""
        full = self.visual(self.chat.inputs(list(images), list(questions)))
        small = [scaled(image, 0.5) for image in images]
        self._fixed = self.visual(self.chat.inputs(small, list(questions))) == full

    @contextlib.contextmanager
    def inputs(
        self, images: Sequence[Medium], questions: Sequence[str], keep: float | int
    ) -> Iterator[dict[str, Any]]:
        """The batch with no more than `keep` of each picture's tokens; generate inside the block.

        Raises `UnsupportedModelError` when neither way makes this model read fewer tokens.
        """
        full = self.visual(self.chat.inputs(list(images), list(questions)))
        budgets = [count(keep, n) for n in full]
        if self._fixed is None:
            self.decide(images, questions)
        if not self._fixed:
            fitted = [self._fit(i, q, n, k) for i, q, n, k in zip(images, questions, full, budgets)]
            yield self.chat.inputs(fitted, list(questions))
            return
        with _as_they_are(self.chat.processor), _interpolating(self.parts):
            patch = _patch_size(self.parts)
            grids = {_grid(max(1, k // _pictures(m))) for k, m in zip(budgets, images)}
            if len(grids) > 1:
                raise TokenPruneError("pictures of one batch need one grid when the tower's size is fixed")
            h, w = grids.pop()
            small = [resized(image, (w * patch, h * patch)) for image in images]
            inputs = self.chat.inputs(small, list(questions))
            if any(n > k for n, k in zip(self.visual(inputs), budgets)):
                raise UnsupportedModelError(f"{self.chat.name} does not read a picture of {h} x {w} patches")
            yield inputs

    def fewer_frames(self, clips: Sequence[Medium], questions: Sequence[str], keep: float | int) -> dict[str, Any]:
        """The batch with as many frames of each clip as fit in `keep` of its tokens, at full resolution.

        Raises `InputError` for pictures and `UnsupportedModelError` when one frame is too many.
        """
        full = self.visual(self.chat.inputs(list(clips), list(questions)))
        fitted = [self._thin(c, q, n, count(keep, n)) for c, q, n in zip(clips, questions, full)]
        return self.chat.inputs(fitted, list(questions))

    def _thin(self, clip: Medium, question: str, full: int, budget: int) -> Clip:
        if not isinstance(clip, Clip):
            raise InputError("fewer frames of a picture: the row is for clips")
        for frames in range(max(1, len(clip.frames) * budget // full), 0, -1):
            thin = fewer(clip, frames)
            if self.visual(self.chat.inputs(thin, question))[0] <= budget:
                return thin
        raise UnsupportedModelError(f"{self.chat.name} reads more than {budget} tokens of one frame")

    def _fit(self, image: Medium, question: str, full: int, budget: int) -> Medium:
        if budget >= full:
            return image
        scale = (budget / full) ** 0.5
        while min(size_of(image)) * scale >= 1:
            small = scaled(image, scale)
            if self.visual(self.chat.inputs(small, question))[0] <= budget:
                return small
            scale *= SHRINK
        raise UnsupportedModelError(
            f"{self.chat.name} reads more than {budget} tokens of the smallest picture"
        )


def _pictures(medium: Medium) -> int:
    return len(medium.frames) if isinstance(medium, Clip) else 1


def _grid(budget: int) -> tuple[int, int]:
    """(h, w) cells, as many as fit in `budget` without cells far from square. The tower sees a square picture."""
    fits = [(h, budget // h) for h in range(1, budget + 1) if budget // h]
    best = [(h, w) for h, w in fits if max(h, w) <= WIDEST * min(h, w)] or [(1, 1)]
    return max(best, key=lambda g: (g[0] * g[1], -abs(g[0] - g[1])))


def _patch_size(parts: Parts) -> int:
    config: Any = getattr(parts.tower, "config", None)
    size = getattr(config, "patch_size", None)
    if not isinstance(size, int):
        raise UnsupportedModelError(
            f"{type(parts.tower).__name__} names no patch_size to make smaller pictures by"
        )
    return size


@contextlib.contextmanager
def _as_they_are(processor: Any) -> Iterator[None]:
    """The image processor neither resizes nor crops inside the block."""
    maker = getattr(processor, "image_processor", None)
    names = [n for n in ("do_resize", "do_center_crop", "do_pad") if hasattr(maker, n)]
    before = {n: getattr(maker, n) for n in names}
    for name in names:
        setattr(maker, name, False)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(maker, name, value)


@contextlib.contextmanager
def _interpolating(parts: Parts) -> Iterator[None]:
    """The tower stretches its position embeddings over another grid inside the block."""
    tower = parts.tower
    if tower is None or "interpolate_pos_encoding" not in inspect.signature(tower.forward).parameters:
        raise UnsupportedModelError(f"{type(tower).__name__} reads pictures of one size only")

    def ask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "interpolate_pos_encoding": True}

    handle = tower.register_forward_pre_hook(ask, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
