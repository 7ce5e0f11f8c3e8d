"""`progressive`: a frame gives what the tokens kept before it do not carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import BoolTensor, Tensor

from .. import kernels
from ..errors import TokenPruneError
from ..kernels import progress
from ..kernels.absorb import centred_mean, nearest_kept
from ..kernels.clip import find_frames
from ..tokens import Selection, VisualTokens
from .base import Reducer, Stream, register

NEAR, SHARE = 0.8, 0.6  # absorb: cosine above which a token goes into a kept one; least share of the latter
_BUDGETS = ("fixed", "adaptive", "threshold")
_RANGES = (("eps", 2), ("gamma", 16), ("reset_on_cut", 2), ("window", 2**20), ("k_min", 2**20))  # from 0
_WHOLE, _OPTIONAL = ("window", "k_min"), ("window", "reset_on_cut")


@register("progressive", aliases=("pvc",))
@dataclass(frozen=True)
class Progressive(Reducer):
    """Frame after frame the tokens farthest from all those kept before, in time and in the frame.

    Our design, without training, on the principle of PVC (Yang et al., 2024, arXiv:2412.09613): a frame adds what was
    not yet told. M: unit vectors kept so far, of the last `window` frames (None: of all). In frame t of T

        rho_i = 1 - max_{m in M} cos(x_ti, m);   k_t times: i = argmax rho_i saliency_i^gamma,  M gets x_ti

    and with M empty the first token is the one most like the frame's mean. budget="fixed": k_t = keep / T.
    "adaptive": k_min = min(k_min, keep // T) each and of the rest a share nu_t = sum_i (1 - max_j cos(x_ti, x_(t-1)j)),
    nu_0 = 0.9 N, by largest remainder. Both keep exactly `keep`. "threshold": until rho <= eps everywhere, k_min at
    least; `keep` says nothing. An image is one frame: T passes of k over a still clip keep what one of T k does.
    `reset_on_cut`: a frame of larger mean rho forgets M (try 0.6). `absorb`: a dropped token goes into the nearest
    kept one of its frame, above cosine 0.8, weighed as FastVID does (`kernels.absorb`); None: as the family has it.

    Layout. Crops of one picture are one frame, as they do not show one thing in turn; so is all that an earlier cut
    of a chain has left. Row separators go last; of a clip's trailing ones the last stays if each frame has a token.
    Deviations. "adaptive" remembers at most twice a window's mean share of `keep`; it costs two to three times "fixed"
    on a CPU, as its counts may not be read back. "threshold" waits for the device every 16 picks. Traps. Counting and
    "how long" ask for what is dropped here. Fades and noise are far from everything (gamma helps). With "threshold" a
    still clip is told anew every window + 1 frames, as the frames that told it are forgotten.
    """

    budget: str = "fixed"
    eps: float = 0.2
    gamma: float = 0.0
    window: int | None = None
    reset_on_cut: float | None = None
    absorb: bool | None = None
    k_min: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget not in _BUDGETS or self.absorb not in (None, True, False):
            name, few = ("absorb", "True, False or None") if self.budget in _BUDGETS else ("budget", _BUDGETS)
            raise TokenPruneError(f"{name}={getattr(self, name)!r}: {few}")
        for name, high in _RANGES:
            value, whole = getattr(self, name), name in _WHOLE
            number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            fits = number and (name == "window") <= value <= high
            if not fits and (value is not None or name not in _OPTIONAL):
                raise TokenPruneError(f"{name}={value!r}: {'an int' if whole else 'a number'} up to {high}")

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether `keep` decides the count."""
        return self.budget != "threshold"

    @property
    def needs(self) -> frozenset[str]:
        """Tower attention only where it counts."""
        return frozenset({"saliency"} if self.gamma > 0 else ())

    def stream(self) -> Stream:
        if self.budget != "threshold" or self.window is None or self.gamma:
            raise TokenPruneError("a stream needs budget='threshold', a window (of 4 to 8, say) and gamma=0")
        return progress.OneClip(self.eps, self.k_min, self.window, self.reset_on_cut)

    def mask(self, x: Tensor, keep: int, weight: Tensor | None, last: Tensor | None) -> BoolTensor:
        """(S, T, N, D) tokens -> (S, T N) those that stay."""
        t, n = x.shape[1:3]
        recall = {"window": self.window, "cut": self.reset_on_cut}
        if self.budget == "threshold":
            follower = progress.Follower(self.eps, self.k_min, **recall)
            each = [
                follower.update(x[:, i], None if weight is None else weight[:, i], last) for i in range(t)
            ]
            return torch.cat(each, 1)  # type: ignore[return-value]
        if self.budget == "adaptive" and t > 1:
            counts = kernels.largest_remainder(progress.novelty(x), keep, n, min(self.k_min, keep // t))
            return progress.keep_counted(x, counts, keep, weight, **recall)
        return progress.keep_fixed(x, progress.even_counts(keep, t), weight, last, **recall)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        s, n, _ = tokens.shape
        clip = find_frames(n, tokens.grid, tokens.coords)
        inside = min(keep - (clip.tail > 0 and keep > clip.frames), clip.frames * clip.size)
        tail = keep - inside if self.exact else 1  # of the trailing separators, the last ones
        with kernels.ranking(tokens.features):
            x, weight = clip.lay_out(tokens.features), None
            if self.gamma > 0:
                if tokens.saliency is None:
                    raise TokenPruneError("gamma > 0 needs the tower's attention")
                weight = progress.emphasis(clip.lay_out(tokens.saliency), self.gamma)
            mask = self.mask(x, inside, weight, clip.last)
            ends = torch.arange(clip.tail, device=x.device).expand(s, -1) >= clip.tail - tail
            kept: Any = clip.put_back(mask, ends)
            if not (tokens.merge_friendly if self.absorb is None else self.absorb):
                return Selection(kept)
            near = nearest_kept(kernels.unit(x).flatten(0, 1), mask.view(-1, clip.size), NEAR, clip.last)
            owner: Any = clip.owners(near.view(s, clip.frames, -1), ends)
        merge = centred_mean(owner, SHARE)
        return Selection(kept, features=merge(tokens.features), owner=owner, merge=merge)
