"""LFM2-VL: a tower that fills every picture up to the longest, patches merged 2 x 2; large images come as tiles."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from . import family
from .base import Call, Family
from .shapes import Shape, grid_shape


@family
class Lfm2Vl(Family):
    """Tiles and thumbnail of one image follow each other with a single mark between them, the thumbnail last."""

    model_types = ("lfm2_vl",)
    merge_friendly = True

    def sizes(self, call: Call) -> list[tuple[int, int]]:
        """(h, w) of each picture in patches."""
        return [(int(h), int(w)) for h, w in call["spatial_shapes"].tolist()]

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        m = composite.config.downsample_factor
        return [grid_shape(1, h // m, w // m) for h, w in self.sizes(call)]

    def same_image(self, ids: Tensor, starts: list[int], lengths: list[int]) -> list[int]:
        image, out = 0, []
        for i, start in enumerate(starts):
            image += i > 0 and start - starts[i - 1] - lengths[i - 1] > 1
            out.append(image)
        return out

    def segments(self, composite: nn.Module, call: Call) -> list[int] | None:
        return [h * w for h, w in self.sizes(call)]

    def patch_features(self, features: Tensor) -> Tensor:
        return features.flatten(0, 2)  # (1, h, w, C), picture by picture

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        m, sizes = composite.config.downsample_factor, self.sizes(call)
        flat = patches.reshape(-1, patches.shape[-1]).split([h * w for h, w in sizes])
        pictures = [p.T.reshape(1, -1, h, w) for p, (h, w) in zip(flat, sizes)]
        return [F.avg_pool2d(p, m).flatten(2)[0].T for p in pictures]
