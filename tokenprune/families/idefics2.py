"""Idefics2: a perceiver resampler between tower and language model, pictures whole or as four crops and the whole."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from torch import Tensor, nn

from . import family
from .base import Family
from .tiles import joined_by_gap

SPLIT = 5  # pictures that image splitting makes of one


@family
class Idefics2(Family):
    """Its tokens are the resampler's latents: they have an order and no place, so methods get no grid.

    One mark stands between the parts of a split picture, and between two pictures without text between them, too. A
    multiple of five in one chain is taken for split pictures.
    """

    model_types = ("idefics2",)
    resampled = True

    def lengths(self, composite: nn.Module, modality: str, features: Any) -> list[int]:
        """The model hands over one feature block per batch row."""
        latents = composite.config.perceiver_config.resampler_n_latents
        return [latents] * (sum(super().lengths(composite, modality, features)) // latents)

    def same_image(self, ids: Tensor, starts: list[int], lengths: list[int]) -> list[int]:
        out: list[int] = []
        for _, chain in groupby(joined_by_gap(starts, lengths, gap=1)):
            count, first = len(list(chain)), out[-1] + 1 if out else 0
            size = SPLIT if count % SPLIT == 0 else 1
            out += [first + i // size for i in range(count)]
        return out
