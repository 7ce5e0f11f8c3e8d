"""Kimi K2.5: a packed tower as in Qwen-VL, patches in raster order, the frames of a clip averaged into one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from . import family
from .base import Call
from .qwen_vl import QwenVL
from .shapes import Shape, grid_shape


@family
class KimiK25(QwenVL):
    """The processor cuts a video into clips of a few frames; each clip is a video of its own here, and one grid."""

    model_types = ("kimi_k25",)
    projector_names = ("mm_projector",)
    merge_friendly = True

    def merge(self, composite: nn.Module) -> int:
        return composite.config.vision_config.merge_kernel_size[0]

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        m = self.merge(composite)
        return [grid_shape(1, h // m, w // m) for _, h, w in self.grids(modality, call).tolist()]

    def segments(self, composite: nn.Module, call: Call) -> list[int] | None:
        modality = "video" if "video_grid_thw" in call else "image"
        return [t * h * w for t, h, w in self.grids(modality, call).tolist()]  # frames of a clip see each other

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        if patches.dim() == 3:  # (cells, m m, C): the projector's input
            return list(patches.mean(1).split([s.n for s in shapes]))
        grids = self.grids(modality, call).tolist()
        clips = patches.split([t * h * w for t, h, w in grids])
        frames = [p.unflatten(0, (t, h, w)).mean(0).permute(2, 0, 1) for p, (t, h, w) in zip(clips, grids)]
        return [F.avg_pool2d(f, self.merge(composite)).flatten(1).T for f in frames]
