"""EVS: of a clip, the tokens that changed most since the frame before."""

from __future__ import annotations

from dataclasses import dataclass

from .. import budget as _budget
from .. import kernels
from ..kernels.frames import one_before
from ..kernels.motion import change
from ..kernels.ranks import thinned
from ..tokens import Selection, VisualTokens
from .base import Reducer, register


@register("evs")
@dataclass(frozen=True)
class EVS(Reducer):
    """Video tokens that changed most since the frame before, over the whole clip; the first frame first.

    EVS (Efficient Video Sampling), 2025, arXiv:2510.14624. With x (S, N, D) the tokens in float32:

        d_ti = 1 - cos(x_ti, x_(t-1)i)   (the same place one frame earlier)      d_0i = larger than all

    and the `keep` largest d of the clip stay, ties to the lower index. The published count is
    max(h w, int(T h w (1 - q))) for a pruning rate q; here keep = 1 - q, rounded like every other count.

    The floor. At q >= 1 - 1/T only the first frame is left, and the published rule never goes below it. `select`
    does, so that counts are exact: below one frame the first frame is thinned evenly, and what it shows is no longer
    EVS. The number of frames is not known before a clip is seen; `frames` says it for clips of equal length (values
    of t: pairs of frames on Qwen), and then a budget below n / frames is refused with the floor named, and tables
    show it there. Leave it at None where images come along.

    On an image nothing has a frame before it: the choice is that of `uniform`. Separators count as first tokens.
    After an earlier cut a token is compared with the last one left at its place.

    Traps. Slow change is lost, as each frame is compared with the one just before, kept or not. Near the floor the
    first frame takes all and late frames starve. Camera motion makes every place change. `scores` are d, with 2 (its
    largest value) for the published constant 255.
    """

    frames: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames is not None:
            _budget.check_number("frames", self.frames, 1, 2**20, whole=True)

    def schedule(self, n: int, num_layers: int) -> dict[int, int] | None:
        _budget.check_floor(self.keep, n, self.floor(n, num_layers), "EVS keeps the whole first frame")
        return super().schedule(n, num_layers)

    def floor(self, n: int, num_layers: int) -> float:
        """One frame, where `frames` tells its size; a separator at the end belongs to it."""
        return 1.0 if self.frames is None else float(-(-n // self.frames))

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        n = tokens.shape[1]
        with kernels.ranking(tokens.features):
            before = one_before(tokens.coords, tokens.features)
            scores = change(tokens.features, before)
            first = before < 0
            order = (scores + first + thinned(first, keep)).argsort(dim=1, descending=True, stable=True)
            return Selection.of_indices(order[:, :keep], n, scores=scores)
