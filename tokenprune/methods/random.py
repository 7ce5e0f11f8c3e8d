"""Random choice: the baseline that six of eight published methods lost to in UniPruneBench."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import torch

from ..errors import TokenPruneError
from ..kernels import hash_scores
from ..tokens import Selection, VisualTokens
from .base import Reducer, register


@register("random")
@dataclass(frozen=True)
class Random(Reducer):
    """A random subset of the tokens, drawn from the seed and the image's place only.

    score_i = hash(seed, ordinal, i), a counter-based integer hash; the `keep` largest stay. (S, N) scores come from
    one vectorised expression, so an image draws the same tokens on any device, in any batch, at any batch place, and
    the sets of one seed are nested in `keep`. A permutation from a generator would be none of these.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.seed, bool) or not isinstance(self.seed, numbers.Integral):
            raise TokenPruneError(f"seed={self.seed!r}: an int")

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        s, n, _ = tokens.shape
        ordinal = tokens.ordinal
        if ordinal is None:
            ordinal = torch.zeros(s, dtype=torch.long, device=tokens.features.device)
        return Selection.of_scores(hash_scores(int(self.seed), ordinal, n), keep)
