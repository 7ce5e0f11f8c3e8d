"""Clips cut into cubes where they change, an equal share of the budget for each cube."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import budget as _budget
from .. import kernels
from ..errors import TokenPruneError, UnknownNameError
from ..kernels.cubes import farthest_ranks, frame_change, most_turns, peaks
from ..kernels.frames import frame_numbers
from ..kernels.ranks import chosen_first, even_ranks, group_rank, in_turns
from ..tokens import Selection, VisualTokens
from .base import Reducer, get_method, method_class, register

BUILT_IN = ("farthest", "uniform")


@register("cubes", aliases=("quicksviewer",))
@dataclass(frozen=True)
class Cubes(Reducer):
    """Clips cut into cubes where they change most; every cube gets an equal share, filled by `fill`.

    After Quicksviewer, 2025, arXiv:2504.15270, whose cutting network and resampler are trained; this is our
    derivation without training. For a clip of F frames, in float32:

        density="momentum":  e_t = mean over places of |m_t|,  m_t = alpha (v_t - v_{t-1}) + (1 - alpha) m_{t-1}
        density="cosine":    e_t = 1 - cos(f_t, f_{t-1}),      f_t = mean token of frame t
        cuts = the n frames of largest e, none within `radius` of a larger one (non-maximum suppression)
        n = min(F - 1, max(1, floor(F / frames_per_cube + 1/2) - 1))   or, with tokens_per_cube,
            min(F - 1, max(0, floor(keep / tokens_per_cube + 1/2) - 1))

    A cube runs from one cut to the next. Cubes get equal shares of `keep`, capped by their size, exact in sum (the
    rest of a division goes to earlier cubes). The radius matters: momentum lets every true cut echo one frame later.

    fill="farthest": inside each cube, first the token nearest the mean, then always the one least similar to those
    chosen. "uniform": evenly spread in raster order. Or the name of an input method with exact counts that reports
    scores: it ranks the clip once as a whole at `keep`; a cube takes what that method chose, then by score.

    An image is one cube: what `fill` chooses of it. Separators belong to the patch before them. A cube's tokens keep
    their own positions; no frame is promised a token. Deviations: no thumbnail, no Gumbel noise, .5 rounds up.
    Traps. n does not depend on the content: a clip without cuts is cut at its noise. "farthest" reads the clip about
    keep / cubes times, which a CPU feels (seconds for 32 frames of 196 tokens at 0.1).
    """

    fill: str = "farthest"
    density: str = "momentum"
    frames_per_cube: float = 5.0
    tokens_per_cube: int | None = None
    alpha: float = 0.8
    radius: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _budget.check_number("frames_per_cube", self.frames_per_cube, 1, 2**20)
        _budget.check_number("alpha", self.alpha, 1e-3, 1)
        _budget.check_number("radius", self.radius, 1, 2**20, whole=True)
        if self.tokens_per_cube is not None:
            _budget.check_number("tokens_per_cube", self.tokens_per_cube, 1, 2**30, whole=True)
        if self.density not in ("momentum", "cosine"):
            raise TokenPruneError(f"density={self.density!r}: 'momentum' or 'cosine'")
        if self.fill not in BUILT_IN:
            try:
                filler = method_class(str(self.fill))
            except UnknownNameError as error:
                raise TokenPruneError(f"fill={self.fill!r}: {' or '.join(BUILT_IN)}, or {error}") from None
            if filler is Cubes or filler.stage != "input" or not filler.exact:
                raise TokenPruneError(f"fill={self.fill!r}: an input method with exact counts, and not cubes")
            object.__setattr__(self, "query_aware", filler.query_aware)

    @property
    def needs(self) -> frozenset[str]:
        """What the filling method reads."""
        return frozenset() if self.fill in BUILT_IN else get_method(self.fill).needs

    def num_cuts(self, frames: int, keep: int) -> int:
        """Cuts wanted for a clip of F frames."""
        if self.tokens_per_cube is not None:
            wanted = max(0, math.floor(keep / self.tokens_per_cube + 0.5) - 1)
        else:
            wanted = max(1, math.floor(frames / self.frames_per_cube + 0.5) - 1)
        return min(frames - 1, wanted)

    def cube(self, tokens: VisualTokens, keep: int) -> tuple[Tensor, int, int]:
        """(S, N) cube of each token, how many cubes there can be, and the most tokens one can be given."""
        x, coords, grid = tokens.features, tokens.coords, tokens.grid
        s, n, _ = x.shape
        if tokens.kind != "video" or coords is None:
            return torch.zeros(s, n, dtype=torch.long, device=x.device), 1, keep
        frame = frame_numbers(coords)
        frames = n if grid is None else grid[0]
        count = most = self.num_cuts(frames, keep)
        if grid is None:  # after an earlier cut only the device knows how many frames are left
            table = torch.tensor([self.num_cuts(f, keep) for f in range(1, n + 1)])
            count = table.to(x.device, non_blocking=True)[frame[-1]]
        e = frame_change(x, coords, frame, frames, None if self.density == "cosine" else self.alpha)
        cube = peaks(e, frame[-1] + 1, count, most, self.radius).long().cumsum(1)
        turns = keep
        if grid is not None and (most - 1) * (2 * self.radius + 1) < frames - 1:  # room for every cut
            turns = most_turns(keep, most + 1, grid[1] * grid[2], self.radius)
        return cube.index_select(1, frame), most + 1, turns

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        with kernels.ranking(tokens.features):
            cube, cubes, turns = self.cube(tokens, keep)
            if self.fill == "farthest":
                rank = farthest_ranks(kernels.unit(tokens.features), cube, cubes, turns)
            elif self.fill == "uniform":
                rank = even_ranks(cube, keep)
            else:
                answer = get_method(self.fill).select(tokens, keep)
                if answer.scores is None:
                    raise TokenPruneError(f"fill={self.fill!r} reports no scores to rank a cube by")
                rank = group_rank(chosen_first(answer.scores, answer.keep), cube)
            return Selection.of_indices(in_turns(rank, cube, keep), cube.shape[1])
