"""MiniCPM-V 4.6: a packed tower that merges 2 x 2 patches half way, and a second merger behind it."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from . import family
from .base import Call, Family
from .shapes import Shape, grid_shape


@family
class MiniCpmV46(Family):
    """Slices of a large image and frames of a video are pictures with marks between them, each of its own budget."""

    model_types = ("minicpmv4_6",)
    projector_names = ("merger",)
    frames_apart = True
    merge_friendly = True

    def sizes(self, call: Call) -> list[tuple[int, int]]:
        """(h, w) of each picture in patches."""
        sizes = call["target_sizes_videos" if "target_sizes_videos" in call else "target_sizes"]
        return [(int(h), int(w)) for h, w in sizes.tolist()]

    def merges(self, composite: nn.Module, call: Call) -> tuple[int, int]:
        """Patches per side of one patch that leaves the tower, and of those per side of one visual token."""
        config: Any = composite.config
        mode = call.get("downsample_mode") or config.downsample_mode
        return 1 if mode == "4x" else 2, config.merge_kernel_size[0] ** config.merger_times

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        m = math.prod(self.merges(composite, call))
        return [grid_shape(1, h // m, w // m) for h, w in self.sizes(call)]

    def segments(self, composite: nn.Module, call: Call) -> list[int] | None:
        m, _ = self.merges(composite, call)
        return [h * w // m**2 for h, w in self.sizes(call)]

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        flat = patches.reshape(-1, patches.shape[-1])
        m = math.isqrt(len(flat) // sum(s.n for s in shapes))  # fewer per token behind the merge half way
        grids = [(s.grid[1] * m, s.grid[2] * m) for s in shapes if s.grid is not None]
        pictures = flat.split([h * w for h, w in grids])
        return [
            F.avg_pool2d(p.T.reshape(1, -1, h, w), m).flatten(2)[0].T for p, (h, w) in zip(pictures, grids)
        ]
