"""DTD: of a clip, every token that differs enough from the frame before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .. import budget as _budget
from .. import kernels
from ..errors import TokenPruneError
from ..kernels.frames import one_before
from ..kernels.motion import change
from ..tokens import Selection, VisualTokens
from .base import Reducer, register


@register("dtd")
@dataclass(frozen=True)
class DTD(Reducer):
    """Video tokens less similar to the frame before than a threshold; the content decides how many.

    Differential Token Drop of TimeChat-Online, 2025, arXiv:2504.17343. With x (S, N, D) the tokens in float32, a
    token is dropped where

        mode="threshold":  cos(x_ti, x_(t-1)i) > tau
        mode="relative":   it is among the floor(tau N + 1/2) most similar ones of the clip

    with the raw frame before as reference, kept or not. The first frame is kept whole, so "relative" drops at most
    the others; ties go to the lower index, which stays. `keep` is not read: `tau` decides, and with it the length of
    each row, which costs one wait for the device.

    The published pixel mode (mean |dRGB| of a patch below tau) is not offered: pixels are not among what models
    serve to methods here.

    On an image, and for separators, there is no frame before and nothing is dropped. After an earlier cut a token is
    compared with the last one left at its place.

    Traps. A change slower than tau a frame is never seen: a unit vector that turns 4.5 degrees a frame for 20 frames
    leaves frame 0 alone at tau=0.9. The level of cosines differs between models (tokens of one model may all lie
    above 0.5), so a tau carries over to another model only by chance; compare methods at the share it kept.
    """

    exact: ClassVar[bool] = False

    tau: float = 0.5
    mode: str = "threshold"

    def __post_init__(self) -> None:
        super().__post_init__()
        _budget.check_number("tau", self.tau, 0 if self.mode == "relative" else -1, 1)
        if self.mode not in ("threshold", "relative"):
            raise TokenPruneError(f"mode={self.mode!r}: 'threshold' or 'relative'")

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        n = tokens.shape[1]
        with kernels.ranking(tokens.features):
            before = one_before(tokens.coords, tokens.features)
            scores = change(tokens.features, before)
            if self.mode == "threshold":
                stay: Tensor = scores >= 1 - self.tau
            else:
                drop = int(self.tau * n + 0.5)
                order = scores.argsort(dim=1, descending=True, stable=True)
                stay = Selection.of_indices(order[:, : n - drop], n).keep
            return Selection(stay | (before < 0), scores=scores)  # type: ignore[arg-type]
