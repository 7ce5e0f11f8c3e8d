"""Pictures to instance tokens: a tower's patches, gathered into K of them by the `instance` method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import BudgetError, InputError, TokenPruneError, UnknownNameError, neighbours
from ..kernels import unit
from ..media import load_image
from ..methods.instance import Instance
from ..tokens import VisualTokens
from .index import Spec
from .readers import find_reader, read

SINGLES = ("class", "mean", "gem")
ALL = "all"
GEM = 3.0


@dataclass(frozen=True)
class Encoded:
    """What an index stores of B pictures, in half precision, every vector of length one."""

    tokens: Tensor  # (B, K, D)
    single: Tensor  # (B, D) for the shortlist

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def join(cls, parts: Sequence[Encoded]) -> Encoded:
        """One after the other."""
        return cls(torch.cat([p.tokens for p in parts]), torch.cat([p.single for p in parts]))


@dataclass(frozen=True)
class Features:
    """All a tower says of B pictures of N patches: what every K and every rule of seeds is computed from."""

    patches: Tensor  # (B, N, D) float32, unit rows
    saliency: Tensor | None  # (B, N) attention received in the last block
    singles: dict[str, Tensor]  # name -> (B, D) float32, unit rows

    @classmethod
    def join(cls, parts: Sequence[Features]) -> Features:
        """One after the other."""
        saliency = [p.saliency for p in parts if p.saliency is not None]
        return cls(
            torch.cat([p.patches for p in parts]),
            torch.cat(saliency) if saliency else None,
            {name: torch.cat([p.singles[name] for p in parts]) for name in parts[0].singles},
        )

    def reduced(self, k: int | str, seeds: str = "attention", aggregate: bool = True) -> Tensor:
        """(B, K, D) float16 instance tokens, in raster order; see `Encoder`."""
        count, n = check_count(k, self.patches.shape[1]), self.patches.shape[1]
        if count == n:
            return self.patches.half()
        method = Instance(seeds=seeds, beta=0.5 if aggregate else 1.0, normalize=True)
        side = round(n**0.5)
        coords: Any = None
        if side * side == n:
            place = torch.arange(n, device=self.patches.device)
            coords = torch.stack([place * 0, place * 0, place // side, place % side], dim=1)
        found = method.select(VisualTokens(self.patches, None, coords=coords, saliency=self.saliency), count)
        if found.features is None:
            raise TokenPruneError("the instance method gave no tokens")
        return found.features[found.keep].view(len(self.patches), count, -1).half()


def check_count(k: int | str, n: int) -> int:
    """Tokens of a picture of `n` patches: "all", or a count, at most all of them."""
    if k == ALL:
        return n
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise BudgetError(f"k={k!r}: a number of tokens from 1 on, or {ALL!r}")
    return min(k, n)


class Encoder:
    """A timm or open_clip tower with what turns pictures into instance tokens.

    After CraterBench-R, 2026, arXiv:2604.06245: K seeds, every other patch averaged into the seed it resembles,
    z_k = l2(t_k + mean of its cluster). See `tokenprune.methods.instance` for the rules of seeds.

    Args:
        tower: `timm.create_model(...)`, an open_clip model or its `visual`; its mode and weights are not touched.
        k: tokens of a picture, or "all".
        seeds: "attention" (of the class token in the last block), "fps", "attention_fps", "density" or "grid".
        aggregate: False leaves the seeds as they are: raw selection.
        single: "class", "mean" or "gem" (power mean of the patches), the vector of the shortlist. Default: "class"
            where there is a class token, else "mean".
        transform: PIL image -> (3, H, W) float tensor. Default: shorter side to the tower's size, centre crop, the
            tower's own mean and deviation.
        batch: pictures that go through the tower together.
    """

    def __init__(
        self,
        tower: nn.Module,
        k: int | str = 64,
        *,
        seeds: str = "attention",
        aggregate: bool = True,
        single: str | None = None,
        transform: Callable[[Image.Image], Tensor] | None = None,
        batch: int = 32,
    ) -> None:
        self.tower, self.library, self.reader = find_reader(tower)
        self.has_class = self.reader.has_class(self.tower)
        self.single = single or ("class" if self.has_class else "mean")
        if self.single not in SINGLES:
            raise UnknownNameError(f"no single vector named {single!r}; {neighbours(str(single), SINGLES)}")
        if self.single == "class" and not self.has_class:
            raise TokenPruneError("this tower has no class token; single='mean' or 'gem' needs none")
        self.patches = self.library.patches(self.tower)
        check_count(k, self.patches or 1)
        Instance(seeds=seeds)  # raises for what is no rule of seeds
        if batch < 1:
            raise InputError(f"batch={batch!r}: at least 1")
        self.k, self.seeds, self.aggregate, self.batch = k, seeds, aggregate, batch
        self.transform = transform or self._transform

    @property
    def spec(self) -> Spec:
        """What an index of these tokens has to know."""
        height, width = self.reader.size(self.tower)
        found = self.read(torch.zeros(1, 3, height, width))
        return Spec(found.tokens.shape[1], found.tokens.shape[2], found.single.shape[1])

    def encode(self, images: Any, k: int | str | None = None) -> Tensor:
        """(K, D) float16 unit tokens of one picture; (B, K, D) of a list or of a batch of pixels (B, 3, H, W)."""
        many = isinstance(images, (list, tuple)) or (isinstance(images, Tensor) and images.ndim == 4)
        tokens = self.read(images if many else [images], k).tokens
        return tokens if many else tokens[0]

    def read(self, images: Sequence[Any] | Tensor, k: int | str | None = None) -> Encoded:
        """Tokens and single vectors of pictures: paths, PIL images, arrays, or pixels (B, 3, H, W) as the tower takes
        them. Pictures are opened and forgotten batch by batch."""
        k = self.k if k is None else k
        return Encoded.join([
            Encoded(part.reduced(k, self.seeds, self.aggregate), part.singles[self.single].half())
            for part in self.parts(images)
        ])  # fmt: skip

    def features(self, images: Sequence[Any] | Tensor) -> Features:
        """Every patch of the pictures, with their attention, in float32."""
        return Features.join(list(self.parts(images, attention=True)))

    @torch.no_grad()
    def parts(self, images: Sequence[Any] | Tensor, attention: bool | None = None) -> Iterator[Features]:
        """`features`, batch by batch."""
        if len(images) == 0:
            raise InputError("no pictures were given")
        wanted = self.seeds.startswith("attention") if attention is None else attention
        weight = next(self.tower.parameters())
        prefix, training = self.library.prefix(self.tower), self.tower.training
        self.tower.eval()
        try:
            for start in range(0, len(images), self.batch):
                pixels = self._pixels(images[start : start + self.batch]).to(weight.device, weight.dtype)
                tokens, saliency = read(self.tower, self.library, self.reader, pixels, wanted)
                patches = tokens[:, prefix:].float()
                singles = {
                    "mean": patches.mean(1),
                    "gem": patches.clamp_min(1e-6).pow(GEM).mean(1).pow(1 / GEM),
                }
                if self.has_class:
                    singles["class"] = tokens[:, 0].float()
                yield Features(unit(patches), saliency, {n: unit(v) for n, v in singles.items()})
        finally:
            self.tower.train(training)

    def _pixels(self, images: Sequence[Any] | Tensor) -> Tensor:
        if isinstance(images, Tensor):
            if images.ndim != 4:
                raise InputError(f"pixels of shape {tuple(images.shape)}: (B, 3, height, width) is taken")
            return images
        return torch.stack([self.transform(load_image(image)) for image in images])

    def _transform(self, image: Image.Image) -> Tensor:
        height, width = self.reader.size(self.tower)
        if image.size != (width, height):
            scale = max(width / image.width, height / image.height)
            size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
            image = image.resize(size, Image.Resampling.BICUBIC)
            left, top = (size[0] - width) // 2, (size[1] - height) // 2
            image = image.crop((left, top, left + width, top + height))
        mean, std = (torch.tensor(c)[:, None, None] for c in self.reader.colours(self.tower))
        pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) / 255
        return (pixels - mean) / std


def encode(tower: nn.Module, images: Any, k: int | str = 64, **options: Any) -> Tensor:
    """(K, D) float16 instance tokens of a picture, (B, K, D) of several; `options` as for `Encoder`."""
    return Encoder(tower, k, **options).encode(images)
