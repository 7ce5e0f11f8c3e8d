"""VideoLLaMA 3: a packed tower as in Qwen-VL, every image and video shrunk by a factor of its own, 1-D positions."""

from __future__ import annotations

from torch import Tensor, nn

from . import family
from .base import Call
from .qwen_vl import QwenVL
from .shapes import Shape, grid_shape


@family
class VideoLlama3(QwenVL):
    """Tokens follow `*_grid_thw` and `*_merge_sizes`; a time stamp stands before each frame of a video.

    The processor leaves out tokens that hardly changed since the frame before (`use_token_compression`, on by
    default): `video_compression_mask`. What is left of such a video has its coordinates but no grid, and its count
    is what `keep` is a share of. Methods that go frame by frame need the grid: give the processor
    `use_token_compression=False` for them.
    """

    model_types = ("video_llama_3",)
    projector_names = ("projector",)
    merge_friendly = True

    def cells(self, modality: str, call: Call) -> list[tuple[int, int, int, int]]:
        """(t, h, w, m) of each image or video: its grid in patches and patches per side of one visual token."""
        sizes = call[f"{modality}_merge_sizes"].tolist()
        return [(t, h, w, m) for (t, h, w), m in zip(self.grids(modality, call).tolist(), sizes)]

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        return [grid_shape(t, h // m, w // m) for t, h, w, m in self.cells(modality, call)]

    def merged(self, modality: str, call: Call) -> Tensor | None:
        return call.get("video_compression_mask") if modality == "video" else None

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        flat = patches.reshape(-1, patches.shape[-1])
        if len(flat) == sum(s.n for s in shapes):  # the projector reads what is shrunk already
            return list(flat.split([s.n for s in shapes]))
        cells = self.cells(modality, call)
        images = flat.split([t * h * w for t, h, w, _ in cells])
        return [p.unflatten(0, (-1, m * m)).mean(1) for p, (_, _, _, m) in zip(images, cells)]
