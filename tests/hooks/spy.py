"""A reducer that remembers what the hooks showed it, and answers like `Fixed`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from tests.fixed import Fixed
from tokenprune import Selection, VisualTokens


@dataclass(frozen=True)
class Spy(Fixed):
    """Asks for `fields` and puts every group it sees into `seen`."""

    fields: tuple[str, ...] = ()
    seen: list[VisualTokens] = field(default_factory=list, compare=False)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.fields)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        self.seen.append(tokens)
        return super().select(tokens, keep)

    def take(self) -> list[VisualTokens]:
        """The groups seen since the last call."""
        out = list(self.seen)
        self.seen.clear()
        return out

    def images(self) -> list[dict[str, torch.Tensor]]:
        """Every image seen since the last call, alone: its fields without the group's first axis, and its grid."""
        out = []
        for group in self.take():
            for s in range(group.shape[0]):
                one = {"coords": group.coords, "grid": group.grid, "kind": group.kind}
                for name in ("features", "ordinal", "saliency", "vision_features", "vision_keys", "text", "text_mask"):
                    value = getattr(group, name)
                    one[name] = None if value is None else value[s]
                one["question"] = None if group.question is None else group.question[s]
                out.append(one)
        return out


@dataclass(frozen=True)
class SpyAtLayer(Spy):
    """The same inside the language model."""

    stage: ClassVar[str] = "layer"
    layer: int = 2
