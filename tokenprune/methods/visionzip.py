"""VisionZip: the tokens the tower looks at, and the others merged into a few of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import TokenPruneError
from ..kernels import ranking, unit
from ..kernels.assign import best_match, gather_members
from ..kernels.clusters import rows
from ..kernels.newlines import newlines
from ..tokens import Selection, VisualTokens
from ._fields import check_choice, check_numbers
from .base import Reducer, register


@register("visionzip")
@dataclass(frozen=True)
class VisionZip(Reducer):
    """Dominant tokens by tower attention; the others merged into evenly spaced contextual ones.

    Yang et al., 2024, arXiv:2412.04467 (CVPR 2025). With a (N,) = `saliency`, k (N, C) = `vision_keys` and
    c = round(contextual keep):

        dominant:    the keep - c tokens of largest a
        contextual:  of the R others, in raster order, those at places floor(i R / c), i < c
        the rest:    each joins the contextual token of largest cos(k_i, k_c); y_c = beta x_c + (1 - beta) mean of them

    The published budgets 192 = 162 + 30, 128 = 108 + 20 and 64 = 54 + 10 all have contextual = 10 / 64. They count
    the class token among the dominant ones; the language models here never see it, so a patch has its place.

    Deviations. The released code adds the two, x_c + mean, which makes merged tokens up to twice as long as any the
    language model was trained on; beta = 1/2 is the same direction at the usual length. It walks in steps of
    floor(R / c), which for a large c leaves the lower part of the picture without targets. compat="official" takes
    both. Row separators are never merged with patches: one that is not dominant is dropped, unless so few patches are
    left that separators fill the targets. All crops of a picture and all frames of a clip are one set; published
    tables cut each crop by itself. Where a tower shows no keys, projected features are compared.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"saliency", "vision_keys"})

    contextual: float = 0.15625
    beta: float = 0.5
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, contextual=(0, 1), beta=(0, 1))
        check_choice(self, "compat", None, "official")

    def targets(self, taken: Tensor, separator: Tensor, count: int) -> Tensor:
        """(S, N) dominant tokens, (S, N) separators -> (S, count) contextual tokens, evenly spaced over the others."""
        late = taken.long() * 2 + separator  # patches, then separators, then the dominant ones
        rest = late.argsort(dim=1, stable=True)
        patches = (~(taken | separator)).sum(1, keepdim=True).clamp_min(count)
        place = torch.arange(count, device=taken.device)
        place = place * (patches // count) if self.compat == "official" else place * patches // count
        return rest.gather(1, place)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        n = tokens.shape[1]
        if tokens.saliency is None:
            raise TokenPruneError("visionzip needs the vision tower's attention")
        count = math.floor(self.contextual * keep + 0.5)
        with ranking(tokens.features):
            scores = tokens.saliency.float()
            order = scores.argsort(dim=1, descending=True, stable=True)
            dominant = order[:, : keep - count]
            if count == 0:
                return Selection.of_indices(dominant, n, scores=scores)
            taken = torch.zeros_like(order, dtype=torch.bool).scatter(1, dominant, True)
            separator = newlines(tokens)
            target = self.targets(taken, separator, count)
            keys = unit(tokens.features if tokens.vision_keys is None else tokens.vision_keys)
            _, label = best_match(keys, rows(keys, target))
            joins = ~(taken | separator).scatter(1, target, True)
            index = torch.arange(n, device=order.device).expand_as(order)
            owner = torch.where(joins, target.gather(1, label), torch.where(separator, -1, index))
            owner = owner.scatter(1, dominant, dominant).scatter(1, target, target)
            size = torch.ones_like(target, dtype=torch.float32)
            if self.compat == "official":  # x + mean is twice their middle
                size = size + (torch.zeros_like(size).scatter_add(1, label, joins.float()) > 0)

        def merge(values: Tensor) -> Tensor:
            own = 0.5 if self.compat == "official" else self.beta
            mixed = gather_members(values, target, label, joins.float(), own) * size.unsqueeze(2)
            return values.scatter(1, target.unsqueeze(2).expand_as(mixed), mixed.to(values.dtype))

        return Selection.of_indices(
            torch.cat([dominant, target], 1),
            n,
            scores=scores,
            features=merge(tokens.features),
            owner=owner,
            merge=merge,
        )
