"""FastVID: segments of like frames, salient tokens of each frame, and merged ones of each segment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import LongTensor, Tensor
from torch.nn.functional import pad

from ..errors import TokenPruneError
from ..kernels import ranking, unit
from ..kernels.absorb import centred_mean
from ..kernels.anchors import frame_peaks, nearest_anchor
from ..kernels.framing import frames_of
from ..tokens import Selection, VisualTokens
from ._fields import check_ints, check_numbers
from .base import Reducer, register


@register("fastvid")
@dataclass(frozen=True)
class FastVID(Reducer):
    """Salient tokens of every frame, and anchors of every segment that the segment's rest is merged into.

    Shen et al., 2025, arXiv:2503.11187 (NeurIPS 2025). x is (T frames of M tokens, D), in float32:

        segments: cut where cos of adjacent frame means is below `tau` or among the `segments` - 1 smallest
        salient:  the highest `saliency` (S, N) of each frame, keep - floor(context keep) in all, evenly
        anchors:  in every `stride`-th frame of a segment, counted from its end, the highest density peaks
                  (`neighbours` nearest) among what is not salient; of the floor(context keep) anchors a segment
                  gets a part like its part of the frames
        merged:   all else goes to the nearest anchor (cosine) of its segment,
                  w anchor + (1 - w) mean of the n others,   w = max(1 / (n + 1), beta)

    Defaults 8, 0.9, 0.4, 4, 4, 0.6 are those for LLaVA-OneVision; for Qwen2.5-VL the authors take tau = 0.84, and leave
    frames almost equal to the next one (cosine 0.95) without tokens, which is left out here. `owner` (S, N) names
    the anchor, -1 in a segment too small to have got one. An anchor keeps its own place in the sequence.

    Deviations. Totals are exact, shared out by `Sheet.shared` and not rounded frame by frame; what anchor frames
    cannot hold goes to the others. Frame features are means of the tokens the language model gets. Density is that of
    `kernels.density_peaks`, the token itself among its neighbours. A picture, crops and all, is one frame and one
    segment; separators are tokens of the frame they end (with the saliency of their row) and are left out of its mean.
    Traps. Cuts are the union of both rules: tau = 0.9 alone can make every frame a segment, each with an anchor frame
    of its own, and `segments` forces that many even on a still clip. With n >= 1 others w is never 1 / (n + 1) at
    beta >= 1/2. Merging gains with 1-D positions and loses with M-RoPE. Clips of one group have different segments.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"saliency"})

    segments: int = 8
    tau: float = 0.9
    context: float = 0.4
    stride: int = 4
    neighbours: int = 4
    beta: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, tau=(-1, 1), context=(0, 1), beta=(0, 1))
        check_ints(self, segments=(1, 2**20), stride=(1, 2**20), neighbours=(1, 2**20))

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        if tokens.saliency is None:
            raise TokenPruneError("fastvid needs the attention of the vision tower")
        frames, n = frames_of(tokens), tokens.features.shape[1]
        sheet, merged = frames.sheet(), math.floor(self.context * keep + 1e-9)
        with ranking(tokens.features):
            saliency = tokens.saliency.float()
            salient = sheet.shared(sheet.ranks(sheet.lay(saliency)), frames.size, keep - merged)
            means = sheet.means(sheet.lay(tokens.features.float()))
            segment = dyseg(means, self.segments, self.tau)  # (S, T)
            # Salient tokens are no peaks of what is left, and come after all of it.
            rank = sheet.ranks(frame_peaks(tokens.features, sheet, salient, self.neighbours))
            anchor = sheet.shared(rank, spacing(segment, self.stride), merged, out=sheet.lay(salient))
            near = nearest_anchor(tokens.features, anchor, merged, segment[:, frames.of])
            keeps = salient | anchor
            owner = torch.where(keeps, torch.arange(n, device=near.device), near)
            merge = centred_mean(owner, self.beta)
        return Selection(keeps, merge(tokens.features), saliency, owner, merge)  # type: ignore[arg-type]


def dyseg(means: Tensor, count: int, tau: float) -> LongTensor:
    """(S, T, D) frame features -> (S, T) segment of each, from 0: cut at the count - 1 least cosines and below tau."""
    f = unit(means)
    alike = (f[:, 1:] * f[:, :-1]).sum(2)
    cut = (alike < tau).scatter_(1, alike.argsort(dim=1, stable=True)[:, : count - 1], True)
    return pad(cut.cumsum(1), (1, 0))  # type: ignore[return-value]


def spacing(segment: Tensor, stride: int) -> Tensor:
    """(S, T) segments -> (S, T) frames of a segment for each of its anchor frames; at all others next to nothing."""
    start, end = torch.searchsorted(segment, segment), torch.searchsorted(segment, segment, right=True)
    less, behind = start - end, end - torch.arange(1, segment.shape[1] + 1, device=segment.device)
    return (less / (less // stride)).where(behind % stride == 0, 1e-6)  # negative: so many anchor frames, rounded up
