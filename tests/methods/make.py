"""`VisualTokens` of every layout with every optional field filled: a new method is tested on them as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tokenprune.tokens import NEWLINE, Kind, VisualTokens


@dataclass(frozen=True)
class Layout:
    """Where the tokens of one image or clip lie. `rows`: (part, t, h, w) blocks; separators after rows or blocks."""

    rows: tuple[tuple[int, int, int, int], ...]
    newline: str = ""  # "row": after every row; "end": after the last block
    kind: Kind = "image"

    @property
    def grid(self) -> tuple[int, int, int] | None:
        if len({part for part, *_ in self.rows}) > 1:
            return None
        return len(self.rows), *self.rows[0][2:]

    @property
    def coords(self) -> torch.Tensor:
        """(N, 4)."""
        out = []
        for part, t, h, w in self.rows:
            for y in range(h):
                out += [(part, t, y, x) for x in range(w)]
                out += [(NEWLINE,) * 4] * (self.newline == "row" and part == self.rows[-1][0])
        out += [(NEWLINE,) * 4] * (self.newline == "end")
        return torch.tensor(out, dtype=torch.long)


def image(h: int, w: int, newline: str = "") -> Layout:
    return Layout(((0, 0, h, w),), newline)


def clip(t: int, h: int, w: int, newline: str = "") -> Layout:
    return Layout(tuple((0, i, h, w) for i in range(t)), newline, "video")


LAYOUTS = {
    "one": image(1, 1),
    "line": image(1, 7),
    "square": image(6, 6),
    "wide": image(3, 11),
    "column": image(13, 1),
    "newlines": image(4, 5, "row"),
    "video": clip(5, 3, 4),
    "video-newline": clip(3, 4, 4, "end"),
    "crops": Layout(((0, 0, 4, 4), (1, 0, 4, 4), (2, 0, 4, 4))),
    "ragged": Layout(((0, 0, 4, 4), (1, 0, 5, 9)), "row"),
    "medium": image(20, 25),
}


def make_tokens(
    layout: Layout, images: int = 1, seed: int = 0, dim: int = 12, dtype: torch.dtype = torch.float32
) -> VisualTokens:
    """A group of `images`; every field is random and depends on (seed, place in the group) alone."""
    coords = layout.coords
    n, words, heads, kv, width = len(coords), 6, 4, 2, 5
    t, h, w = layout.grid or (1, 4, 4)

    def draw(*shape: int, positive: bool = False) -> torch.Tensor:
        nonlocal field
        field += 1
        rows = [torch.Generator().manual_seed(1_000_003 * seed + 1009 * field + i) for i in range(images)]
        sample = torch.rand if positive else torch.randn
        return torch.stack([sample(shape, generator=g) for g in rows]).to(
            torch.float32 if positive else dtype
        )

    field = 0
    mask = torch.arange(words) < 3 + (torch.arange(images) % 4)[:, None]
    return VisualTokens(
        features=draw(n, dim),
        grid=layout.grid,
        kind=layout.kind,
        coords=coords,  # type: ignore[arg-type]
        ordinal=torch.arange(images),  # type: ignore[arg-type]
        saliency=draw(n, positive=True),
        vision_features=draw(n, dim + 3),
        vision_keys=draw(n, dim + 3),
        text=draw(words, dim),
        text_mask=mask,  # type: ignore[arg-type]
        text_keys=draw(kv, words, width),
        queries=draw(heads, n, width),
        keys=draw(kv, n, width),
        attention=0.7 * draw(n, positive=True).softmax(1),  # the rest of a row goes to text
        text_attention=0.6 * (4 * draw(words, n, positive=True)).softmax(2),
        received=draw(n, positive=True),
        question=["how many red circles?" if i % 2 else "what is left of the square?" for i in range(images)],
        pixels=draw(t, 3, 14 * h, 14 * w, positive=True),
        layer=2,
        num_layers=16,
    )


def take(tokens: VisualTokens, order: list[int]) -> VisualTokens:
    """The same images in another order, or some of them."""
    fields = {}
    for name, value in vars(tokens).items():
        if name == "question":
            value = [value[i] for i in order]
        elif isinstance(value, torch.Tensor) and name != "coords":
            value = value[order]
        fields[name] = value
    return VisualTokens(**{**fields, "memo": {}})
