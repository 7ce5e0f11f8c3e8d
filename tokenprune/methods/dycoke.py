"""DyCoke: windows of four frames compared with each other and, if asked for, fewer keys while decoding."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import BoolTensor, Tensor

from .. import budget as _budget
from .. import kernels
from ..errors import TokenPruneError
from ..kernels.decode import top_mask
from ..kernels.frames import latest_at
from ..kernels.framing import coords_of, frame_of
from ..kernels.motion import NONE, change
from ..kernels.ranks import group_rank, in_turns, thinned
from ..tokens import Selection, VisualTokens
from .base import Reducer, register

WINDOW = 4


@register("dycoke")
@dataclass(frozen=True)
class DyCoke(Reducer):
    """Windows of four frames: the first stays whole, of the others what differs from it.

    Tao et al., 2024, arXiv:2411.15024. In windows of 4 frames, frame 0 stays whole; frames 1 and 2 are compared with
    0 and frame 3 with 2 (cos of the same place, float32), and of each the int((1 - K) h w) least similar tokens stay.
    "Temporal merging" drops. Here `keep` decides: what the whole frames leave is shared equally over the others (one
    more to earlier frames where it does not divide); keep = (1 + 3 (1 - K)) / 4, so K=0.7 is 0.475.

    The floor is the whole frames, 25 %. `frames`, and what is chosen below the floor: as in `evs`. Images have no
    other frames: their choice is that of `uniform`. Separators count as whole. Survivors keep place and order
    (released: top-k order). compat="official": the third frame of the last window stays whole too, as the released
    loop does not reach it.

    stages="both" (or "decode" alone) adds the dynamic cache: at each decode step, with a (B, V) the head-mean
    attention of `layer` over visual keys, it and the layers before it read everything, later ones the
    int((1 - drop) V) keys of largest a, at least one; chosen anew where cos(a, a of the step before) < `similar`.
    Nothing is evicted. The default "prefill" cuts the prompt alone, as the methods it is compared with do.
    compat="official": a is of layer - 1, and at steps not below `similar` everything is read: the released code has
    cleared its subset by then. The published 14.25 % is 47.5 % cached times 0.3 read, not a prefill count.
    """

    frames: int | None = None
    stages: str = "prefill"
    layer: int = 3
    drop: float = 0.7
    similar: float = 0.9
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames is not None:
            _budget.check_number("frames", self.frames, 1, 2**20, whole=True)
        _budget.check_number("layer", self.layer, 1, 2**20, whole=True)
        _budget.check_number("drop", self.drop, 0, 1)
        _budget.check_number("similar", self.similar, -1, 1)
        for name, known in (("stages", ("prefill", "decode", "both")), ("compat", (None, "official"))):
            if getattr(self, name) not in known:
                raise TokenPruneError(f"{name}={getattr(self, name)!r}: {' or '.join(map(repr, known))}")
        if self.stages == "decode":
            object.__setattr__(self, "stage", "decode")  # of this one; the class acts on the input

    def parts(self) -> tuple[Reducer, ...]:
        stages = ("prefill", "decode") if self.stages == "both" else (self.stages,)
        return tuple(dataclasses.replace(self, stages=stage) for stage in stages)

    def schedule(self, n: int, num_layers: int) -> dict[int, int] | None:
        if self.stage == "input":
            _budget.check_floor(
                self.keep, n, self.floor(n, num_layers), "DyCoke keeps each window's first frame"
            )
        return super().schedule(n, num_layers)

    def floor(self, n: int, num_layers: int) -> float:
        """The frames that stay whole, where `frames` tells how many there are."""
        if self.frames is None or self.stage == "decode":
            return super().floor(n, num_layers)
        whole = -(-self.frames // WINDOW) + (self.compat is not None and (self.frames - 1) % WINDOW >= 2)
        return float(-(-n * whole // self.frames))

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        x, coords = tokens.features, coords_of(tokens)
        with kernels.ranking(x):
            t = coords[:, 1]
            role = t % WINDOW
            other = latest_at(coords, torch.add(t - role, role == 3, alpha=2))
            whole = (role == 0) | (other < 0)
            if self.compat == "official":
                whole = whole | ((role == 2) & (t // WINDOW == t.amax() // WINDOW))
            scores = change(x, torch.where(whole, -1, other))
            frame = frame_of(tokens).expand(x.shape[0], -1)
            rank = group_rank(scores.masked_fill(whole, -NONE), frame)
            rank = torch.where(whole, -1 - thinned(whole, keep).long(), rank)
            return Selection.of_indices(in_turns(rank, frame, keep), x.shape[1], scores=scores)

    @property
    def dense(self) -> int:
        return self.layer  # decode stage: that many first layers always read everything

    def focal_layers(self, num_layers: int) -> tuple[int, ...]:
        return (_budget.resolve_layer(self.layer, num_layers) - (self.compat == "official"),)

    def num_read(self, n: int) -> int:
        return n if self.compat == "official" else min(n, max(1, int((1 - self.drop) * n + 1e-9)))

    def attend(self, attention: Tensor, valid: BoolTensor, state: dict[str, Tensor]) -> BoolTensor:
        now, n = attention.float().mean(1) * valid, valid.sum(1)
        count = ((1 - self.drop) * n.double() + 1e-9).long().clamp(min=1).minimum(n)
        chosen = top_mask(now.masked_fill(~valid, -1), count, now.shape[1]) & valid
        if "last" in state:
            alike = (kernels.unit(now) * kernels.unit(state["last"])).sum(1, keepdim=True) >= self.similar
            chosen = torch.where(alike, valid if self.compat == "official" else state["chosen"], chosen)
        state["last"], state["chosen"] = now, chosen
        return chosen  # type: ignore[return-value]
