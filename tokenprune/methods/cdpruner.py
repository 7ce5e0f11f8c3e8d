"""CDPruner: a diverse subset, conditioned on the question, as a determinantal point process."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import TokenPruneError
from ..kernels import cosine, minmax, ranking, unit
from ..kernels.dpp import greedy_dpp
from ..tokens import Selection, VisualTokens
from ._clip_text import check_tower, load_tower
from .base import Reducer, register


@register("cdpruner")
@dataclass(frozen=True)
class CDPruner(Reducer):
    """Determinantal point process of tokens: unlike each other, weighted by the question.

    Zhang et al., 2025, arXiv:2506.10967 (NeurIPS 2025). With x (S, N, D) = `features` at unit length:

        relevance   r_i = minmax over i of (- mean over the text's vectors u of cos(v_i, u))   in [0, 1]
        kernel      L = diag(r) x x^T diag(r)
        choice      greedy: argmax_i log det L over the kept and i, `keep` times (`kernels.dpp`)

    The minus is the released code's; negative=False takes the plain cosine. theta in [0, 1) makes it
    r <- exp(theta r / (2 (1 - theta))): 0 is diversity alone, towards 1 relevance alone. Without a question r is 1.
    The kept sets are nested in `keep`.

    Text. By default u are the input embeddings of the question's tokens and v = `features`, as for towers without a
    text side. text_tower="open_clip:<model>/<pretrained>" (a tag, or a file of weights) encodes the question with
    CLIP instead, in pieces where it is longer than CLIP reads, and takes v = `vision_features` through CLIP's last
    norm and projection: the model must then have that CLIP as its tower, and the question as a string a processor.

    Deviations. Min and max are of each image; the released code has them of the batch. Where the model reads the
    layer before the tower's last (LLaVA), the projection is applied to that layer's vectors. Tokens that cannot add to
    the determinant (after rank(x) others, or with r = 0) come last, by falling r. Traps. Whether the minus is
    right for a language model's embeddings has not been shown.
    """

    query_aware: ClassVar[bool] = True

    theta: float | None = None
    negative: bool = True
    text_tower: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        theta: Any = self.theta
        number = isinstance(theta, numbers.Real) and not isinstance(theta, bool)
        if theta is not None and not (number and 0 <= float(theta) < 1):
            raise TokenPruneError(f"theta={theta!r}: a number in [0, 1), or None")
        if not isinstance(self.negative, bool):
            raise TokenPruneError(f"negative={self.negative!r}: True or False")
        if self.text_tower is not None:
            check_tower(self.text_tower)

    @property
    def needs(self) -> frozenset[str]:
        """The question's embeddings, or the question and what CLIP's projection takes."""
        return frozenset({"text"} if self.text_tower is None else {"question", "vision_features"})

    def pair(self, tokens: VisualTokens) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """(S, N, E) vectors of the tokens, (S, T, E) of the text, (S, T) which of these count; None without text."""
        if self.text_tower is None:
            if tokens.text is None or tokens.text.shape[1] == 0:
                return None
            return tokens.features, tokens.text, tokens.text_mask
        if tokens.question is None or tokens.vision_features is None:
            raise TokenPruneError(
                "text_tower needs the question as a string: patch_model(..., processor=...)"
            )
        tower = load_tower(self.text_tower, str(tokens.features.device))
        return (tower.project(tokens.vision_features), *tower.encode(tokens.question))

    def relevance(self, tokens: VisualTokens) -> Tensor:
        """(S, N) in [0, 1]; ones without a question."""
        pair = self.pair(tokens)
        if pair is None:
            return torch.ones(tokens.shape[:2], device=tokens.features.device)
        visual, text, mask = pair
        alike = cosine(visual, unit(text))
        valid = torch.ones_like(text[..., 0], dtype=torch.bool) if mask is None else mask
        mean = torch.bmm(alike, valid.float().unsqueeze(2)).squeeze(2) / valid.sum(1, keepdim=True).clamp_min(
            1
        )
        return torch.where(valid.any(1, keepdim=True), minmax(-mean if self.negative else mean), 1.0)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        with ranking(tokens.features):
            relevance = self.relevance(tokens)
            weight = (
                relevance.log() if self.theta is None else relevance * (self.theta / (2 * (1 - self.theta)))
            )
            order = greedy_dpp(unit(tokens.features), weight, keep)
        return Selection.of_indices(order, tokens.shape[1], scores=relevance)
