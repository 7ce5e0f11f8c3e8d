"""Methods as a server must survive them; known by name only where `make_known` was called, in no other test."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tokenprune import Reducer, Selection, VisualTokens, register


@dataclass(frozen=True)
class Halves(Reducer):
    """Keeps half of what it is asked for."""

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        scores = tokens.features.float().norm(dim=2)
        return Selection.of_scores(scores, max(keep // 2, 1))


@dataclass(frozen=True)
class Raises(Reducer):
    """Raises on every picture."""

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        raise RuntimeError("out of ideas")


@dataclass(frozen=True)
class Shapeless(Reducer):
    """Answers for other tokens than it was shown."""

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return Selection(torch.ones(1, tokens.shape[1] + 1, dtype=torch.bool))  # type: ignore[arg-type]


@dataclass(frozen=True)
class MergesBadly(Reducer):
    """Fails only when DeepStack levels come through its map."""

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        def merge(values: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no such level")

        keep_mask = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        keep_mask[:, :keep] = True
        return Selection(keep_mask, features=tokens.features, merge=merge)  # type: ignore[arg-type]


def make_known() -> None:
    """Register those that an engine is asked to serve."""
    register("test_halves")(Halves)
    register("test_raises")(Raises)
