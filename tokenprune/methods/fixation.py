"""Fixation: nothing is dropped; most layers look only at what a few layers look at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import BoolTensor, Tensor

from .. import budget as _budget
from ..errors import BudgetError, TokenPruneError
from ..kernels.decode import top_mask
from ..kernels.dilation import nearby, remember
from ..tokens import Stage
from .base import Reducer, register


@register("fixation", aliases=("fastocr",))
@dataclass(frozen=True)
class Fixation(Reducer):
    """Decode only: focal layers read all visual keys and choose those the other layers read; nothing is evicted.

    After Tang et al., 2026, arXiv:2605.17447 (FastOCR), of which the abstract is public: this is our derivation, not
    their code. At each decode step, with p (B, H, V) the softmax row of a focal layer over the visual keys:

        F = the k visual keys of largest agg_h p,   k = max(k_min, ceil(keep V)), all of them if V is smaller

    and the layers up to the next focal one attend to all text keys and to F, renormalised. Layers before the first
    focal layer start from the F of the step before (gaze moves little between steps); the first step is dense there.
    Prefill and steps of several tokens are dense. The cache stays bit for bit the unpruned one.

    `keep` is the share of visual keys in the sparse layers; on layer average with m of L layers focal it is
    (m + (L - m) keep) / L. `focal`: a count, spread evenly over the depth, or layers (floats are shares of the
    depth); `tokenprune calibrate focal` finds them. `heads`: "mean" or "max" over query heads. `per_group`: every
    key head group follows its own choice. `dense`: that many first layers always read everything.

    `dilate` r > 0 makes focal layers cheaper too: they read only C = all within r rows and columns of their own last F
    on its image, the first column of the next r rows, and every F since their last full look; p is over C and the text.
    They look in full every `refresh` steps, at clips, and in rows where sum_F p / sum_C p, p averaged or maximised over
    heads, was under `theta` the step before. C may fill half a page: counting it takes one host read a focal layer.

    Traps. A focal layer that comes too late cannot mend what earlier layers missed in that step: jumps over the page
    cost one step. Visual attention sinks fill the top k. Batch 1 decoding is bound by weights, so whole-step gains are
    small there; see the README's table before hoping.
    """

    stage: ClassVar[Stage] = "decode"
    query_aware: ClassVar[bool] = False  # it follows whatever is read at each step

    keep: float | int = 0.05
    focal: int | tuple[float | int, ...] = 3
    k_min: int = 32
    heads: str = "mean"
    per_group: bool = False
    dense: int = 0
    dilate: int = 0
    refresh: int = 8
    theta: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.focal, list):
            object.__setattr__(self, "focal", tuple(self.focal))
        if not isinstance(self.focal, tuple) and (isinstance(self.focal, bool) or not self.focal >= 1):
            raise BudgetError(f"focal={self.focal!r}: a count >= 1, or a list of layers")
        if isinstance(self.focal, tuple) and not self.focal:
            raise BudgetError("focal=(): at least one layer has to look")
        if self.heads not in ("mean", "max"):
            raise TokenPruneError(f"heads={self.heads!r}: 'mean' or 'max'")
        for name, least in (("k_min", 1), ("dense", 0), ("dilate", 0), ("refresh", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise TokenPruneError(f"{name}={value!r}: an int >= {least}")
        if (
            isinstance(self.theta, bool)
            or not isinstance(self.theta, (int, float))
            or not 0 <= self.theta <= 1
        ):
            raise TokenPruneError(f"theta={self.theta!r}: a share from 0 to 1")

    def focal_layers(self, num_layers: int) -> tuple[int, ...]:
        if isinstance(self.focal, tuple):
            return tuple(sorted({_budget.resolve_layer(k, num_layers) for k in self.focal}))
        if self.focal > num_layers:
            raise BudgetError(f"focal={self.focal}: this model has {num_layers} layers")
        if self.focal == num_layers:
            return tuple(range(num_layers))
        return tuple((i + 1) * num_layers // (self.focal + 1) for i in range(self.focal))

    def num_read(self, n: int) -> int:
        """Visual keys a sparse layer reads of n."""
        k = self.keep if isinstance(self.keep, int) else math.ceil(self.keep * n - 1e-9)
        return min(n, max(self.k_min, k))

    def candidates(self, valid: BoolTensor, state: dict[str, Tensor]) -> BoolTensor | None:
        if not self.dilate or self.refresh == 1 or "last" not in state:
            return None
        most = self.num_read(valid.shape[1]) * (state["groups"].shape[1] if self.per_group else 1)
        state["within"] = nearby(state, valid, min(most, valid.shape[1]), self.refresh, self.theta)
        return state["within"]  # type: ignore[return-value]

    def attend(self, attention: Tensor, valid: BoolTensor, state: dict[str, Tensor]) -> BoolTensor:
        groups = state["groups"].shape[1] if self.per_group else 1
        by_group = attention.float().unflatten(1, (groups, -1))
        scores = by_group.mean(2) if self.heads == "mean" else by_group.amax(2)  # (B, G, V)
        within = state.pop("within", valid)
        seen = within[:, None].expand_as(scores)
        n = valid.sum(1)
        whole = isinstance(self.keep, int)
        count = n.clamp(max=self.keep) if whole else (n.double() * self.keep - 1e-9).ceil().long()
        count = count.clamp(min=self.k_min).minimum(n)[:, None].expand(-1, groups)
        chosen = top_mask(scores.masked_fill(~seen, -1.0), count, self.num_read(valid.shape[1])) & seen
        if self.dilate and self.refresh > 1:
            remember(state, scores, chosen, within, valid, self.dilate)
        return chosen if self.per_group else chosen[:, 0]  # type: ignore[return-value]
