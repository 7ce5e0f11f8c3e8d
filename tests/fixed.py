"""Reducers of the tests: masks that the references know too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from tests.tiny.models import fixed_mask
from tokenprune import Reducer, Selection, VisualTokens


@dataclass(frozen=True)
class AllTrue(Reducer):
    """Keeps everything, on the full path: the content decides, so nothing may be skipped."""

    exact: ClassVar[bool] = False

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return Selection(torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.features.device))


@dataclass(frozen=True)
class Fixed(Reducer):
    """About 40 % of each image, another set for each ordinal."""

    exact: ClassVar[bool] = False

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        n = tokens.shape[1]
        masks = [fixed_mask(n, int(o)) for o in tokens.ordinal]
        return Selection(torch.stack(masks).to(tokens.features.device))


@dataclass(frozen=True)
class FixedAtLayer(Fixed):
    """The same inside the language model."""

    stage: ClassVar[str] = "layer"
    layer: int = 2
