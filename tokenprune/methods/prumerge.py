"""PruMerge and PruMerge+: outliers of the tower's attention, with what is similar merged into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import TokenPruneError
from ..kernels import ranking, unit
from ..kernels.clusters import rows
from ..kernels.knn import best_list, listed_sums, most_similar
from ..kernels.newlines import newlines
from ..kernels.outliers import fill_evenly, upper_outliers
from ..tokens import Selection, VisualTokens
from ._fields import check_choice, check_ints
from .base import Reducer, register


@register("prumerge")
@dataclass(frozen=True)
class PruMerge(Reducer):
    """Outliers of the tower's attention, each with its most similar dropped tokens merged in.

    Shang et al., 2024, arXiv:2403.15388 (ICCV 2025). a (N,) = `saliency` and k (N, C) = `vision_keys`, last block:

        centres:  a_i > q3 + 1.5 (q3 - q1), the quartiles of a; at least the largest
        plus:     and every floor(N / their number)-th token
        merging:  y_i = (x_i + sum_j a_j x_j) / (1 + sum_j a_j), the `neighbours` dropped j of largest cos(k_i, k_j)

    budget="adaptive": the content decides the count, `keep` is not read. budget="fixed" keeps exactly `keep`: the
    largest a; with `plus` the outliers (at most `keep`), filled up with others evenly spaced in raster order.

    Deviations. The released sum is not divided by its weights, so merged tokens are longer, and one more token, the
    a-weighted sum of all that is dropped, is appended; compat="official" takes both, but the sum lives in the slot of
    the most attended dropped token and counts (not at keep=1). a is a mean over heads (released: one softmax over
    all of them). Row separators are neither merged nor merged into. Traps: a sums to 1 at most, so merging changes
    little; attention sinks are outliers too; a flat a leaves one token.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"saliency@-1", "vision_keys@-1"})

    plus: bool = False
    budget: str = "adaptive"
    neighbours: int = 32
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.plus, bool):
            raise TokenPruneError(f"plus={self.plus!r}: True or False")
        check_choice(self, "budget", "adaptive", "fixed")
        check_ints(self, neighbours=(1, 1024))
        check_choice(self, "compat", None, "official")

    @property
    def exact(self) -> bool:
        """Only at a fixed budget."""
        return self.budget == "fixed"

    def centres(self, a: Tensor, keep: int) -> tuple[Tensor, int]:
        """(S, N) attention -> (S, N) centres, and how many there are at most."""
        n = a.shape[1]
        if self.exact:
            best = Selection.of_scores(a, keep).keep
            return (fill_evenly(upper_outliers(a)[0] & best, keep) if self.plus else best), keep
        outlier, most = upper_outliers(a)
        if not self.plus:
            return outlier, most
        stride = n // outlier.sum(1, keepdim=True)
        return outlier | (torch.arange(n, device=a.device) % stride == 0), most + -(-n // (n // most))

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        n, official = tokens.shape[1], self.compat == "official"
        if tokens.saliency is None:
            raise TokenPruneError("prumerge needs the vision tower's attention")
        spare = official and (not self.exact or 1 < keep < n)  # one slot is for the sum of what is dropped
        with ranking(tokens.features):
            a = tokens.saliency.float()
            kept, most = self.centres(a, keep - (spare and self.exact))
            centre = kept.view(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
            joins = ~(kept | (separator := newlines(tokens)))
            keys = unit(tokens.features if tokens.vision_keys is None else tokens.vision_keys)
            index, cosine = most_similar(rows(keys, centre), keys, joins, self.neighbours)
            idle = (kept <= separator).gather(1, centre)  # separators, and what is no centre
            cosine = cosine.masked_fill(idle.unsqueeze(2), -float("inf"))
            weight = a.gather(1, index.flatten(1)).view_as(cosine) * (cosine > -float("inf"))
            size = 1.0 if official else 1 / (1 + weight.sum(2, keepdim=True))
            owner = torch.where(kept, torch.arange(n, device=a.device), best_list(index, cosine, centre, n))
            if spare:  # a patch's slot where one is dropped
                slot = a.masked_fill(separator, -1).masked_fill(kept, -2).argmax(1, keepdim=True)
                kept = kept.scatter(1, slot, True)
                owner = torch.where(joins & (owner < 0), slot, owner).scatter(1, slot, slot)

        def merge(values: Tensor) -> Tensor:
            mixed = (rows(values, centre).float() + listed_sums(values, index, weight)) * size
            out = values.scatter(1, centre.unsqueeze(2).expand_as(mixed), mixed.to(values.dtype))
            if not spare:
                return out
            total = ((a * joins).unsqueeze(2) * values.float()).sum(1, keepdim=True).to(values.dtype)
            total = torch.where(joins.any(1).view(-1, 1, 1), total, rows(out, slot))
            return out.scatter(1, slot.unsqueeze(2).expand_as(total), total)

        return Selection(kept, features=merge(tokens.features), scores=a, owner=owner, merge=merge)  # type: ignore[arg-type]


@register("prumerge_plus", aliases=("prumerge+",))
@dataclass(frozen=True)
class PruMergePlus(PruMerge):
    """PruMerge with evenly spaced tokens besides the outliers: `prumerge` with plus=True.

    Same source, formulas and deviations as `prumerge`.
    """

    plus: bool = True
