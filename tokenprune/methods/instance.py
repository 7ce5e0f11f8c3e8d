"""Instance tokens: a few seeds, and every other token gathered into the seed it resembles."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import TokenPruneError
from ..kernels import ranking, token_cells, unit
from ..kernels.assign import best_match, gather_members
from ..kernels.clusters import peak_order, rows
from ..kernels.maxmin import max_min
from ..kernels.newlines import newlines
from ..kernels.similarity import TINY
from ..tokens import Selection, VisualTokens
from .base import Reducer, register

SEEDS = ("attention", "fps", "attention_fps", "density", "grid")
METRICS = ("features", "vision_features", "vision_keys")


@register("instance", aliases=("instance_tokens",))
@dataclass(frozen=True)
class Instance(Reducer):
    """Seeds that differ and are looked at; every other token is averaged into the one it resembles.

    After CraterBench-R, 2026, arXiv:2604.06245 (image retrieval). With t (S, N, D) = `features`, a = `saliency`:

        seeds s_1..s_K   "attention": largest a. "fps": farthest points, d_i = min_k 1 - cos(t_i, t_{s_k}), argmax d_i.
                         "attention_fps": argmax a_i d_i. "density": density peaks. "grid": centres of `pool`'s cells
        clusters         C_k: the tokens, seeds aside, whose most similar seed (cosine) is s_k
        y_k              beta t_{s_k} + (1 - beta) mean(C_k), and t_{s_k} itself where C_k is empty

    A seed keeps the share `beta` however large its cluster, so background does not drown it; "adaptive" is
    max(1 / (|C_k| + 1), 0.6). The paper's z_k = l2(t_{s_k} + mean(C_k)) of unit tokens is beta = 1/2 up to length;
    normalize=True gives that, for retrieval only: the length of projected tokens tells a language model something.
    y_k lives in its seed's place. DeepStack levels get the same clusters and beta. First pick of the two farthest
    point rules: the largest (a_i times) distance to the nearest neighbour. All seeds but "grid" are nested in `keep`.

    Deviations. Cosines are of the projected tokens, the ones that get averaged, by default; metric="vision_features"
    or "vision_keys" takes the tower's. Squared distance for density is 2 (1 - cos), and no noise is added. Separators
    become seeds only after all patches, and are dropped (owner -1) where they are none, not averaged. Traps. Towers
    without registers attend to a few background tokens, which "attention" then all takes.
    """

    seeds: str = "attention_fps"
    beta: float | str = 0.5
    normalize: bool = False
    metric: str = "features"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("seeds", SEEDS), ("metric", METRICS), ("normalize", (False, True))):
            if not isinstance(getattr(self, name), (str, bool)) or getattr(self, name) not in known:
                raise TokenPruneError(f"{name}={getattr(self, name)!r}: one of {', '.join(map(str, known))}")
        beta: Any = self.beta
        number = isinstance(beta, numbers.Real) and not isinstance(beta, bool) and 0 <= float(beta) <= 1
        if not number and beta != "adaptive":
            raise TokenPruneError(f"beta={beta!r}: a share from 0 to 1, or 'adaptive'")

    @property
    def needs(self) -> frozenset[str]:
        """Attention only for seeds by attention, tower vectors only where they are compared."""
        wanted = {"saliency": self.seeds.startswith("attention"), self.metric: self.metric != "features"}
        return frozenset(name for name, used in wanted.items() if used)

    def choose(self, tokens: VisualTokens, x: Tensor, last: Tensor, keep: int) -> Tensor:
        """(S, N, C) unit rows, (S, N) separators -> (S, keep) seeds."""
        attentive = self.seeds.startswith("attention")
        weight = tokens.saliency if attentive else None
        if attentive and weight is None:
            raise TokenPruneError("these seeds need the tower's attention; seeds='fps' or 'grid' need none")
        if self.seeds == "grid":
            if tokens.coords is None:
                raise TokenPruneError("seeds='grid' needs coords")
            return token_cells(tokens, keep).slot.expand(x.shape[0], -1)
        if self.seeds.endswith("fps"):
            return max_min(x, keep, weight, last).index
        if weight is not None:
            order = weight.float().argsort(dim=1, descending=True, stable=True)
        else:
            order = peak_order(x * x.shape[2] ** 0.5)
        late = last.gather(1, order).to(torch.uint8).argsort(dim=1, stable=True)
        return order.gather(1, late)[:, :keep]

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        source = getattr(tokens, self.metric)
        if source is None:
            raise TokenPruneError(f"metric={self.metric!r} is not there; metric='features' always is")
        before = after = None
        with ranking(tokens.features):
            x, last = unit(source), newlines(tokens)
            slot = self.choose(tokens, x, last, keep)
            _, label = best_match(x, rows(x, slot), (last, last.gather(1, slot)))
            label = label.scatter(1, slot, torch.arange(keep, device=x.device).expand_as(slot))
            weight = (~last).float().scatter(1, slot, 0.0)
            owner = slot.gather(1, label).masked_fill(last, -1).scatter(1, slot, slot)
            beta: Any = self.beta
            if beta == "adaptive":
                beta = (1 / torch.ones_like(weight[:, :keep]).scatter_add(1, label, weight)).clamp_min(0.6)
            if self.normalize:
                before = torch.linalg.vector_norm(tokens.features.float(), dim=2).clamp_min(TINY)
                mixed = gather_members(unit(tokens.features), slot, label, weight, beta)
                after = torch.linalg.vector_norm(mixed, dim=2).clamp_min(TINY)

        def merge(values: Tensor) -> Tensor:
            new = values if before is None else values.float() / before.unsqueeze(2)
            new = gather_members(new, slot, label, weight, beta)
            if after is not None:
                new = new / after.unsqueeze(2)
            return values.scatter(1, slot.unsqueeze(2).expand_as(new), new.to(values.dtype))

        return Selection.of_indices(
            slot, x.shape[1], features=merge(tokens.features), owner=owner, merge=merge
        )
