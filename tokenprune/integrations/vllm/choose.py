"""The worker's side of a choice: from one picture's features to exactly the rows that were promised.

A wrong count would raise inside vLLM's engine and take it down for everybody, so nothing here raises on what a method
does: a count is mended, and a method that fails is replaced by `uniform`, each said once in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...families.shapes import Shape
from ...methods import Reducer, get_method
from ...tokens import Kind, Selection, VisualTokens

logger = logging.getLogger("vllm.tokenprune")  # below vLLM's own logger, so that it is formatted and shown
GOLDEN = 0.6180339887498949  # its multiples modulo 1 are spread evenly, however many of them are taken


def exact(mask: Tensor, quotas: Sequence[int], scores: Tensor | None = None) -> Tensor:
    """(N,) bool with any count -> the ascending indices of exactly quotas[i] tokens in each of equal parts of N.

    What the mask has comes first, then by score; without scores what is too much is thinned evenly, and what is
    missing is taken evenly from the rest. A mask that is right is left as it is. Ties go to the lower index.
    """
    parts, chosen = len(quotas), mask.view(len(quotas), -1)
    if scores is None:
        rank = torch.where(chosen, chosen.cumsum(1), (~chosen).cumsum(1)).double()
        second = 1 - (rank * GOLDEN) % 1
    else:
        order = (
            scores.float()
            .nan_to_num(-float("inf"))
            .view(parts, -1)
            .argsort(dim=1, stable=True, descending=True)
        )
        second = 1 - order.argsort(dim=1).double() / chosen.shape[1]
    best = (chosen.double() * 2 + second).argsort(dim=1, descending=True, stable=True)
    wanted = torch.tensor(quotas).to(mask.device)
    kept = best.argsort(dim=1) < wanted[:, None]
    return _indices(kept.flatten(), sum(quotas))


def _indices(mask: Tensor, count: int) -> Tensor:
    """Ascending indices of the `count` true entries, without asking the device how many there are."""
    return mask.to(torch.uint8).argsort(descending=True, stable=True)[:count]


@dataclass
class Chooser:
    """A method at work on one picture after another; deterministic, so each rank of a group chooses the same."""

    method: Reducer
    merge_friendly: bool = False
    _said: set[str] = field(default_factory=set)

    def __call__(
        self, features: Tensor, shape: Shape, kind: Kind, quotas: Sequence[int], width: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """(N, W) features -> (K, W) rows that stay, and their (K,) ascending indices; K is the sum of `quotas`.

        One quota, or one for each frame. `width`: the first columns, which methods see; DeepStack levels follow.
        """
        n, kept = features.shape[0], sum(quotas)
        if kept == n:
            return features, torch.arange(n, device=features.device)
        seen = features[:, :width]
        tokens = VisualTokens(
            seen[None],
            shape.grid,
            kind,
            shape.coords.to(features.device),
            ordinal=torch.zeros(1, dtype=torch.long, device=features.device),
            merge_friendly=self.merge_friendly,
        )
        try:
            return self._apply(self.method, features, tokens, quotas)
        except Exception as error:  # somebody's method must not take everybody's engine down
            text = "%s failed on a picture of %d tokens (%s: %s); `uniform` chooses where it does"
            self._say("fault", text, type(self.method).__name__, n, type(error).__name__, error)
            return self._apply(get_method("uniform"), features, tokens, quotas)

    @torch.no_grad()
    def _apply(
        self, method: Reducer, features: Tensor, tokens: VisualTokens, quotas: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        kept = sum(quotas)
        answer = method.select(tokens, kept)
        _check(answer, tokens)
        mask, scores = answer.keep[0], None if answer.scores is None else answer.scores[0]
        found = int(mask.sum())
        if found != kept:
            text = "%s kept %d of %d tokens, not %d; mended"
            self._say("count", text, type(method).__name__, found, len(features), kept)
        index = exact(mask, quotas, scores)
        return _merged(features, answer, tokens.shape[2])[index], index

    def _say(self, key: str, text: str, *values: object) -> None:
        if key not in self._said:
            self._said.add(key)
            logger.warning(text + ". Said once.", *values)


def _check(answer: Selection, tokens: VisualTokens) -> None:
    shape = tuple(tokens.shape[:2])
    if tuple(answer.keep.shape) != shape or answer.keep.dtype != torch.bool:
        raise ValueError(
            f"a mask {tuple(answer.keep.shape)} of {answer.keep.dtype}, not {shape} of torch.bool"
        )
    if answer.scores is not None and tuple(answer.scores.shape) != shape:
        raise ValueError(f"scores {tuple(answer.scores.shape)}, not {shape}")
    if answer.features is not None and answer.features.shape != tokens.features.shape:
        raise ValueError(f"features {tuple(answer.features.shape)}, not {tuple(tokens.features.shape)}")


def _merged(features: Tensor, answer: Selection, width: int) -> Tensor:
    """(N, W) with merged rows where the method keeps a token; DeepStack levels go through the same linear map."""
    if answer.features is None:
        return features
    parts = [answer.features[0].to(features.dtype)]
    for level in features[:, width:].split(width, dim=1) if features.shape[1] > width else ():
        parts.append(level if answer.merge is None else answer.merge(level[None])[0].to(features.dtype))
    return torch.where(answer.keep[0][:, None], torch.cat(parts, 1), features)
