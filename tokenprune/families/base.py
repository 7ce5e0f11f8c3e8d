"""What may differ between model families, with the answers that fit most of them.

A family says where the parts are, how many tokens each image has and on which grid they lie, and how a tensor over
tower patches becomes one over visual tokens. Everything else is found in the model itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .labels import labelled_clips
from .shapes import Shape, flat_shape, joined_shape, row_shape

Call = Mapping[str, Any]  # the bound arguments of a get_image_features / get_video_features call


class Family:
    """Default family: one grid of tokens per tower picture. Subclass it in a file of its own and `@family` it."""

    model_types: ClassVar[tuple[str, ...]] = ()
    tower_names: ClassVar[tuple[str, ...]] = (
        "vision_tower",
        "visual",
        "vision_model",
        "image_tower",
        "vision_encoder",
    )
    twin_names: ClassVar[tuple[str, ...]] = ()  # further towers of the same make, for another modality
    projector_names: ClassVar[tuple[str, ...]] = (
        "multi_modal_projector",
        "connector",
        "aligner",
        "mm_projector",
    )
    text_names: ClassVar[tuple[str, ...]] = ("language_model", "text_model")
    modalities: ClassVar[tuple[str, ...]] = ("image", "video")
    frames_apart: ClassVar[bool] = False  # each frame of a video is a video of its own
    frame_label: ClassVar[str | None] = None  # pattern of the words before a frame that comes as an image
    resampled: ClassVar[bool] = False  # its tokens are queries that read the whole picture, not places in it
    class_token: ClassVar[int] = 0  # its place in the tower's sequence, where there is one
    merge_friendly: ClassVar[bool] = False  # merging did better than dropping on it: seen with 1-D positions only

    def placeholder_id(self, config: Any, modality: str) -> int | None:
        """Token id that stands for one visual token of this modality in `input_ids`."""
        for name in (f"{modality}_token_id", f"{modality}_token_index"):
            value = getattr(config, name, None)
            if isinstance(value, int):
                return value
        return None

    def find(self, composite: nn.Module, names: Sequence[str]) -> nn.Module | None:
        """The first of several attribute paths that exists."""
        for name in names:
            module: Any = composite
            for part in name.split("."):
                module = getattr(module, part, None)
            if isinstance(module, nn.Module):
                return module
        return None

    def modality(self, method: str, call: Call, forward: Call) -> str:
        """What a call of get_`method`_features encodes, inside a `forward` of the model with these arguments."""
        return method

    @property
    def one_encoder(self) -> bool:
        """Videos are encoded by get_image_features, too."""
        return type(self).modality is not Family.modality

    def features(self, output: Any) -> Any:
        """The features that are merged in, of what get_image_features gives back."""
        return output[1] if isinstance(output, tuple) else getattr(output, "pooler_output", output)

    def lengths(self, composite: nn.Module, modality: str, features: Any) -> list[int]:
        """Tokens of each image, in the order of the call, from the features about to be merged in."""
        if isinstance(features, Tensor):
            return [features.shape[0]] if features.dim() == 2 else [f.shape[:-1].numel() for f in features]
        return [f.shape[:-1].numel() for f in features]

    def shapes(self, composite: nn.Module, modality: str, call: Call, lengths: list[int]) -> list[Shape]:
        """The layout of each image's tokens."""
        return self.fallback_shapes(lengths)

    def fallback_shapes(self, lengths: list[int]) -> list[Shape]:
        """Layout of features that were computed before the patch and so come without their call."""
        return [row_shape(n) if self.resampled else flat_shape(n) for n in lengths]

    def same_image(self, ids: Tensor, starts: list[int], lengths: list[int]) -> list[int] | None:
        """Image number of each run of one row's (L,) `ids`, where tiles of one picture come as separate features."""
        return None

    def joined(self, tiles: tuple[Shape, ...]) -> Shape:
        """One picture's layout from those of its tiles."""
        return joined_shape(tiles)

    @property
    def joins(self) -> bool:
        """Several features of a call may be one picture or clip, by what stands between them."""
        return self.frame_label is not None or type(self).same_image is not Family.same_image

    def same_clip(
        self, ids: Tensor, spans: list[tuple[int, int]], read: Callable[[Tensor], str]
    ) -> list[int | None] | None:
        """Number of the video that each image of one row's (L,) `ids` is a frame of; None: of none."""
        return None if self.frame_label is None else labelled_clips(ids, spans, self.frame_label, read)

    def merged(self, modality: str, call: Call) -> Tensor | None:
        """(all tokens,) mask of the features that reach the prompt, where the model's own forward leaves some out."""
        return None

    def saliency_layer(self, composite: nn.Module, depth: int) -> int:
        """Tower block whose attention tells what is salient: the one whose output the model itself reads."""
        config = composite.config
        old_name = getattr(config, "vision_feature_layers", -1)  # VipLLaVA's before transformers 5.23
        layer = getattr(config, "vision_feature_layer", old_name)
        if isinstance(layer, (list, tuple)):
            layer = layer[0]
        if not isinstance(layer, int):
            layer = -1
        return layer % depth if layer < 0 else max(layer - 1, 0)  # hidden_states[j > 0] leaves block j - 1

    def segments(self, composite: nn.Module, call: Call) -> list[int] | None:
        """Patches per picture where the tower packs several into one sequence, or fills each up; None otherwise."""
        return None

    def patch_features(self, features: Tensor) -> Tensor:
        """The projector's input as (pictures, P, C), or (all patches, C) where the tower packs."""
        return features

    def spread(
        self, composite: nn.Module, modality: str, call: Call, patches: Tensor, shapes: list[Shape]
    ) -> list:
        """(pictures, P, C) over tower patches in raster order -> per image (n, C) over visual tokens."""
        return [pool_to_grid(p, shape.n) for p, shape in zip(patches, shapes)]


def pool_to_grid(patches: Tensor, n: int) -> Tensor:
    """(P, C) on a square grid -> (n, C) on a square grid that divides it: the mean of the cells merged into one."""
    p = patches.shape[0]
    if p == n:
        return patches
    side, target = math.isqrt(p), math.isqrt(n)
    if side * side != p or target * target != n or side % target:
        raise ValueError(f"{p} tower patches cannot be pooled onto {n} visual tokens")
    square = patches.T.reshape(1, -1, side, side)
    return F.avg_pool2d(square, side // target).flatten(2)[0].T


def fill_newlines(values: Tensor, shape: Shape) -> Tensor:
    """(n, C) with NaN at newlines -> the same with the mean of the row that each newline ends."""
    newline = shape.coords[:, 3] < 0
    before = (
        torch.where(newline, 0, torch.arange(shape.n)).cummax(0).values
    )  # a newline's row is that of its left
    row = shape.coords[before, :3].unique_consecutive(dim=0, return_inverse=True)[1].to(values.device)
    newline = newline.to(values.device)
    clean = values.masked_fill(newline[:, None], 0)
    total = torch.zeros_like(clean).index_add_(0, row, clean)
    count = values.new_zeros(shape.n).index_add_(0, row, (~newline).to(values.dtype))
    return torch.where(newline[:, None], (total / count.clamp(min=1)[:, None])[row], clean)
