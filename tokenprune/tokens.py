"""What flows between the two sides: the hooks make `VisualTokens`, a method answers with a `Selection`.

Letters used in every shape of this project: S images of equal shape (a *group*), N visual tokens of one image,
D features, T question tokens, B batch rows, L logical (original) sequence length, P physical (shortened) length,
H query heads, Hkv key heads, d_h head width, C vision-tower width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import BoolTensor, LongTensor, Tensor

Stage = Literal["input", "layer", "decode"]
Kind = Literal["image", "video"]

NEWLINE = -1
"""Coordinate of a visual token that is a row separator and not a patch."""


@dataclass(eq=False)
class VisualTokens:
    """A group of S images (or videos) of equal shape, seen together so that scoring is batched.

    Only `features`, `grid` and `kind` are always there, with `coords` and `ordinal`; the others are filled when
    the method names them in `needs`, else None.
    """

    features: Tensor  # (S, N, D) as the language model receives them, or hidden states entering layer k
    grid: tuple[int, int, int] | None  # (t, h, w) of the tokens that are not newlines; None for ragged crops
    kind: Kind = "image"
    coords: LongTensor | None = None  # (N, 4): part (0 = base or thumbnail), t, y, x; NEWLINE at separators
    ordinal: LongTensor | None = (
        None  # (S,) the image's place in its own row; seeds depend on it, never on mates
    )
    saliency: Tensor | None = None  # (S, N) attention received in the vision tower
    vision_features: Tensor | None = None  # (S, N, C) before the projector
    vision_keys: Tensor | None = None  # (S, N, C) head-mean tower keys
    text: Tensor | None = None  # (S, T, D) the question's input embeddings, or hidden states
    text_mask: BoolTensor | None = None  # (S, T)
    text_keys: Tensor | None = None  # (S, Hkv, T, d_h)
    queries: Tensor | None = None  # (S, H, N, d_h) of layer k-1, after norm and RoPE
    keys: Tensor | None = None  # (S, Hkv, N, d_h)
    attention: Tensor | None = None  # (S, N) of the last prompt token at layer k-1, mean over heads
    text_attention: Tensor | None = None  # (S, T, N)
    received: Tensor | None = None  # (S, N) column mean over the prompt
    question: list[str] | None = None  # S strings
    pixels: Tensor | None = None  # (S, t, 3, H, W)
    layer: int = 0
    num_layers: int = 1
    merge_friendly: bool = False  # the model's family takes merged tokens well (1-D positions)
    memo: dict[str, Any] = field(default_factory=dict)  # (S, ...) written by one call, read by the next one

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, N, D)."""
        return tuple(self.features.shape)  # type: ignore[return-value]


@dataclass(eq=False)
class Selection:
    """A method's answer for one group. A mask cannot repeat, reorder or overrun, whatever the method does."""

    keep: BoolTensor  # (S, N)
    features: Tensor | None = None  # (S, N, D); rows of kept tokens replace theirs (merging)
    scores: Tensor | None = None  # (S, N), larger is more important; for the report and the overlays
    owner: LongTensor | None = None  # (S, N) index of the kept token each one went into, -1 dropped
    merge: Callable[[Tensor], Tensor] | None = None
    """Linear map (S, N, D') -> (S, N, D') that made `features`; also applied to DeepStack levels."""

    @classmethod
    def of_indices(cls, indices: Tensor, n: int, **extra: Any) -> Selection:
        """From (S, K) kept indices in any order."""
        keep = torch.zeros(indices.shape[0], n, dtype=torch.bool, device=indices.device)
        return cls(keep.scatter_(1, indices, True), **extra)  # type: ignore[arg-type]

    @classmethod
    def of_scores(cls, scores: Tensor, keep: int, **extra: Any) -> Selection:
        """The `keep` largest of (S, N) scores; equal scores go to the lower index."""
        order = scores.float().argsort(dim=1, descending=True, stable=True)
        return cls.of_indices(order[:, :keep], scores.shape[1], scores=scores, **extra)


@dataclass
class ImageReport:
    """What happened to one image or video in the last prefill."""

    row: int
    ordinal: int
    kind: Kind
    grid: tuple[int, int, int] | None
    before: int
    after: int
    kept: list[int]  # indices into the image's own tokens, ascending, after the last cut
    coords: Tensor  # (before, 4)
    scores: Tensor | None = None  # (before,) of the last cut that gave any; NaN where already dropped
    owner: Tensor | None = None  # (before,)
    per_layer: list[int] = field(default_factory=list)  # tokens alive in each decoder layer


@dataclass
class FixationReport:
    """What the decode steps since the last prefill looked at."""

    steps: int
    focal: list[int]  # layers that read everything
    visual: list[int]  # visual tokens of each row, all its images in order
    choices: list[tuple[int, int, list[list[int]]]]  # (step, focal layer, per row the ascending indices chosen)
    sparse_share: float  # of the visual keys, read by a layer that is not focal
    read_share: float  # of the visual keys, read on layer average


@dataclass
class PruneReport:
    """The last prefill of a patched model, in numbers."""

    images: list[ImageReport]
    logical: int  # sequence length outside the decoder
    physical: list[int]  # sequence length inside each decoder layer (longest row)
    equivalent_tokens: float  # mean over images of the layer-average visual tokens
    flops: float  # language-model FLOPs of this prefill (2 per multiply-accumulate, text included)
    flops_unpruned: float
    kv_bytes: int  # summed from the cache's tensors
    kv_bytes_unpruned: int
    fixation: FixationReport | None = None  # of a decode-stage method, up to now

    @property
    def before(self) -> int:
        return sum(i.before for i in self.images)

    @property
    def after(self) -> int:
        return sum(i.after for i in self.images)

    @property
    def keep_share(self) -> float:
        """Equivalent tokens as a share of the original ones."""
        if not self.images:
            return 1.0
        return self.equivalent_tokens * len(self.images) / max(self.before, 1)

    def summary(self) -> str:
        return (
            f"{len(self.images)} image(s), {self.before} -> {self.after} visual tokens "
            f"({self.keep_share:.1%} on layer average), language model {self.flops / 1e9:.2f} of "
            f"{self.flops_unpruned / 1e9:.2f} GFLOP, KV cache {self.kv_bytes / 2**20:.2f} of "
            f"{self.kv_bytes_unpruned / 2**20:.2f} MiB"
        )
