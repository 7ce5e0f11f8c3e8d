"""Where the visual tokens of a call lie: one `Segment` per image or video, grouped by shape for batched scoring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import LongTensor, Tensor

from ..errors import PatchError
from ..families.shapes import Shape, clip_shape, joined_shape, thinned_shape
from ..tokens import Kind


@dataclass(eq=False)
class Features:
    """What one get_image_features / get_video_features call told: per image its shape and what was asked for."""

    modality: Kind
    shapes: list[Shape]
    extras: dict[str, list[Tensor]] = field(default_factory=dict)  # name -> per image (n, ...) tensors

    def repeated(self, count: int, row_tokens: Sequence[int]) -> Features:
        """For beams: transformers repeats the images of each prompt as one group, A B A B.

        `count` images fill the placeholders of a batch with `row_tokens` (B * beams) of them a row.
        """
        times = max(count // max(len(self.shapes), 1), 1)
        order: list[int] = []
        first = last = 0
        for tokens in row_tokens[::times]:
            while tokens > 0 and last < len(self.shapes):
                tokens -= self.shapes[last].n
                last += 1
            order += list(range(first, last)) * times
            first = last
        extras = {k: [v[i] for i in order] for k, v in self.extras.items()}
        return Features(self.modality, [self.shapes[i] for i in order], extras)

    def images(self, start: int, end: int) -> Features:
        """Some of them, in their order."""
        extras = {name: values[start:end] for name, values in self.extras.items()}
        return Features(self.modality, self.shapes[start:end], extras)

    def thinned(self, merged: Tensor | None) -> Features:
        """The same where only `merged` (all tokens,) of the features reach the prompt; None: all of them."""
        if merged is None:
            return self
        masks = merged.cpu().bool().split([s.n for s in self.shapes])
        shapes = [thinned_shape(s, tuple(m.tolist())) for s, m in zip(self.shapes, masks)]
        places = [m.nonzero()[:, 0] for m in masks]
        extras = {
            k: [v.index_select(0, p.to(v.device)) for v, p in zip(vs, places)] for k, vs in self.extras.items()
        }
        return Features(self.modality, shapes, extras)


@dataclass(eq=False)
class Segment:
    """One image or video of one row."""

    row: int
    kind: Kind
    shape: Shape
    positions: LongTensor  # (n,) indices into the row's call, on the CPU
    features: Features
    index: int  # place in `features`
    ordinal: int = 0


@dataclass(eq=False)
class Group:
    """Segments of one shape, seen by a method as one batch."""

    segments: list[Segment]
    flat: LongTensor  # (S, N) indices into the call's (B * L) tokens, on the model's device

    @property
    def shape(self) -> Shape:
        return self.segments[0].shape

    @property
    def kind(self) -> Kind:
        return self.segments[0].kind

    def extra(self, name: str) -> Tensor | None:
        """(S, N, ...) of an optional field, stacked from the images' own tensors."""
        if any(name not in s.features.extras for s in self.segments):
            return None
        return torch.stack([s.features.extras[name][s.index] for s in self.segments])


@dataclass(eq=False)
class Layout:
    """All visual tokens of one call."""

    segments: list[Segment]
    groups: list[Group]
    visual: Tensor  # (B, L) bool, on the CPU
    batch: int
    length: int
    images_seen: list[int] = field(default_factory=list)  # of each row so far, for the next turn

    def __post_init__(self) -> None:
        self.images_seen = [0] * self.batch

    @property
    def text_behind(self) -> int:
        """Text tokens behind the last visual one, of the row that has fewest."""
        last = [int(row.nonzero()[-1]) if bool(row.any()) else -1 for row in self.visual]
        return self.length - 1 - max(last)

    def number_after(self, seen: Sequence[int]) -> None:
        """Count images on from the `seen` ones of each row's earlier turns; beams share their prompt's number."""
        if seen and self.batch % len(seen) == 0:
            self.images_seen = [n for n in seen for _ in range(self.batch // len(seen))]
        for segment in self.segments:
            segment.ordinal += self.images_seen[segment.row]
        for segment in self.segments:
            self.images_seen[segment.row] += 1


def find_layout(
    ids: Tensor,
    sources: Sequence[Features],
    placeholders: dict[str, int],
    device: torch.device | str,
    same_image: Callable[[Tensor, list[int], list[int]], list[int] | None] = lambda *_: None,
    same_clip: Callable[[Tensor, list[tuple[int, int]]], list[int | None] | None] | None = None,
    joined: Callable[[tuple[Shape, ...]], Shape] = joined_shape,
) -> Layout:
    """Match placeholder positions with the lengths of the features that fill them, in batch order.

    Adjacent images without a separator are told apart by these lengths, a video cut up by timestamps is put
    together again; `same_image` (of the family) says which runs of a row are tiles of one picture and `joined` how they
    lie in it, `same_clip` which images are frames of one video. `ids` (B, L) must lie on the CPU.
    """
    batch, length = ids.shape
    segments: list[Segment] = []
    visual = torch.zeros(batch, length, dtype=torch.bool)
    for source in sources:
        places = (ids == placeholders[source.modality]).nonzero()
        lengths = [s.n for s in source.shapes]
        if sum(lengths) != len(places):
            raise PatchError(
                f"the call has {len(places)} {source.modality} placeholder tokens but features for {sum(lengths)}"
            )
        for index, span in enumerate(places.split(lengths)):
            rows = span[:, 0]
            if len(span) and rows[0] != rows[-1]:
                raise PatchError(
                    f"the tokens of {source.modality} {index} are spread over two rows of the batch"
                )
            positions: Any = span[:, 1]
            segments.append(
                Segment(int(rows[0]), source.modality, source.shapes[index], positions, source, index)
            )
            visual[rows, positions] = True
    segments.sort(key=lambda s: (s.row, int(s.positions[0])))
    segments = [
        s
        for row in range(batch)
        for s in _joined(ids[row], [s for s in segments if s.row == row], same_image, same_clip, joined)
    ]
    by_shape: dict[tuple[Any, ...], list[Segment]] = {}
    for segment in segments:
        by_shape.setdefault((segment.kind, id(segment.shape)), []).append(segment)
    return Layout(segments, [_group(g, length, device) for g in by_shape.values()], visual, batch, length)


def _joined(
    ids: Tensor, segments: list[Segment], same_image: Any, same_clip: Any, joined: Any
) -> list[Segment]:
    """Segments of one row, tiles of one picture and frames of one video made one, numbered by their place."""
    starts, lengths = [int(s.positions[0]) for s in segments], [s.shape.n for s in segments]
    images = same_image(ids, starts, lengths) if segments else None
    if images is not None:
        tiles = [[s for s, i in zip(segments, images) if i == image] for image in sorted(set(images))]
        segments = [
            t[0] if len(t) == 1 else _join(t, joined(tuple(s.shape for s in t)), t[0].kind)
            for t in tiles
        ]
    if same_clip is not None:
        segments = _clips(ids, segments, same_clip)
    for ordinal, segment in enumerate(segments):
        segment.ordinal = ordinal
    return segments


def _clips(ids: Tensor, segments: list[Segment], same_clip: Any) -> list[Segment]:
    """Frames that came as images made one video; images of several tiles are no frames, whatever is said of them."""
    clips = same_clip(ids, [(int(s.positions[0]), int(s.positions[-1]) + 1) for s in segments])
    if clips is None:
        return segments
    out: list[Segment] = []
    for clip, numbered in groupby(range(len(segments)), clips.__getitem__):
        frames = [segments[i] for i in numbered]
        shape = frames[0].shape
        if clip is not None and shape.grid is not None and all(f.shape is shape for f in frames):
            out.append(_join(frames, clip_shape(shape, len(frames)), "video"))
        else:
            out += frames
    return out


def _join(parts: list[Segment], shape: Shape, kind: Kind) -> Segment:
    extras = {
        name: [torch.cat([p.features.extras[name][p.index] for p in parts])]
        for name in parts[0].features.extras
    }
    positions: Any = torch.cat([p.positions for p in parts])
    return Segment(parts[0].row, kind, shape, positions, Features(kind, [shape], extras), 0)


def _group(segments: list[Segment], length: int, device: torch.device | str) -> Group:
    flat: Any = torch.stack([s.positions + s.row * length for s in segments])
    return Group(segments, flat.to(device, non_blocking=True))
