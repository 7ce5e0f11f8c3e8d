"""What the families share: prompts, left padding, weights large enough to matter, fixed masks.

A prompt is a list of items: an int is so many text tokens, a string names one of the family's media.
Each kind of input is one prompt a row, so `rows()` can build every row alone and `inputs()` the padded batch.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .stamp import Stamp

VOCAB = 200
PAD, BOS, EOS = 0, 1, 2
IMAGE, VIDEO, VISION_START, VISION_END = 5, 6, 7, 8
VIDEO_START, VIDEO_END, FAKE_IMAGE, GLOBAL_IMAGE, ROW_COL, IMAGE_BREAK = 9, 10, 11, 12, 13, 14
FIRST_TEXT = 20  # ids below are special and are never generated

TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": None,  # generation runs to max_new_tokens
}

KINDS = {"image": 1, "video": 2}
Prompt = list[int | str]


@dataclass
class Media:
    """One image or video as a prompt carries it."""

    kind: str  # "image" | "video"
    ids: list[int]  # placeholders and the family's own start/end/separator tokens around them
    payload: dict[str, Tensor] = field(default_factory=dict)


def seeded(*parts: object) -> torch.Generator:
    """A generator that depends on its arguments only (`hash` of a str changes from process to process)."""
    return torch.Generator().manual_seed(zlib.crc32(repr(parts).encode()))


def text_ids(count: int, *seed: object) -> list[int]:
    return torch.randint(FIRST_TEXT, VOCAB, (count,), generator=seeded("text", *seed)).tolist()


def pixels(*shape: int, seed: object) -> Tensor:
    return torch.randn(*shape, generator=seeded("pixels", seed))


def rescale(model: nn.Module, seed: int) -> nn.Module:
    """Redraws all weights so that logits are of size 1 to 10 and every image token matters.

    With the default std of 0.02 a dropped image hardly moves the logits, and a broken test passes.
    """
    generator = torch.Generator().manual_seed(seed)
    head = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight
    redrawn = set()
    with torch.no_grad():
        for module in model.modules():
            for weight in module.parameters(recurse=False):
                if id(weight) in redrawn:  # tied
                    continue
                redrawn.add(id(weight))
                noise = torch.randn(weight.shape, generator=generator)
                if weight is head:
                    weight.copy_(noise * (1 if head is embedding else 3) / math.sqrt(weight.shape[1]))
                elif (
                    weight.ndim == 1
                ):  # norms (also Gemma's, centred on 0) and biases stay near their own centre
                    weight.add_(noise * 0.1)
                elif isinstance(module, nn.Embedding):
                    weight.copy_(noise)
                elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                    weight.copy_(noise * 1.2 / math.sqrt(weight[0].numel()))
                elif weight.ndim == 3 and weight.shape[0] > 1:  # a matrix for each expert
                    weight.copy_(noise * 1.2 / math.sqrt(weight.shape[2]))
                elif weight.ndim == 2:  # bare x @ W (Gemma 3's projector)
                    weight.copy_(noise / math.sqrt(weight.shape[0]))
                else:  # learned positions, class tokens
                    weight.copy_(noise * 0.5)
        # Special ids get logit 0, never the largest of 180 random ones. A generated image id would be an
        # image without pixels to every later cache-free recomputation.
        head[:FIRST_TEXT] = 0
    return model


@functools.lru_cache(maxsize=128)
def drawn(make: Callable[[], nn.Module], seed: int) -> Stamp:
    """The family's model with its weights drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
    return Stamp(rescale(model, seed).eval())


@dataclass(frozen=True)
class Family:
    """One model class with inputs for it. Tensors are made anew at every call, always with the same values."""

    name: str
    make: Callable[[], nn.Module]  # an unscaled model
    media: Callable[[str, str], Media]  # (media name, seed) -> media
    # media of each row -> payload as the processor emits it
    collate: Callable[[list[list[Media]]], dict[str, Tensor]]
    # inputs -> tokens of each image and of each video, batch-wide in the payload's order
    lengths: Callable[[dict[str, Tensor]], dict[str, list[int]]]
    prompts: dict[str, list[Prompt]]
    types: str | None = None  # name of the 0 text / 1 image / 2 video tensor, where the processor emits one
    types_mark_media: bool = True  # PaliGemma's say 0 for the whole prompt and 1 for the answer
    typed: tuple[int, ...] = ()  # ids that have type 1 besides: Molmo 2's marks around images
    bos_first: bool = True
    image_token_id: int = IMAGE
    video_token_id: int | None = None
    # (B, L) ids -> 0 text, 1 image, 2 video, where neither types nor ids tell
    kinds_of: Callable[[Tensor], Tensor] | None = None
    # media that a later turn can bring, where an image's tokens depend on how many there are in all
    later: str | None = None
    # for `patch_model(..., processor)`, where only words tell a video's frames from images
    reader: object = None
    way: str = "masked"  # to drop tokens in the reference: "masked" | "rows", for layers that carry a state
    # what methods can see of the vision tower
    tower_fields: tuple[str, ...] = ("saliency", "vision_features", "vision_keys")
    # what transformers says where it fails, unpatched too: "beams", "chunks" (of a prefill) -> words of the error
    fails: dict[str, str] = field(default_factory=dict)
    # takes out what makes a row in a padded batch another than alone, unpatched too
    level: Callable[[nn.Module], None] | None = None

    @property
    def attends(self) -> bool:
        """Methods can see what the vision tower attends to."""
        return "saliency" in self.tower_fields

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.prompts)

    def build(self, seed: int = 0, attn: str = "sdpa") -> nn.Module:
        model = drawn(self.make, seed)()
        model.set_attn_implementation(attn)
        return model

    def inputs(self, kind: str = "single") -> dict[str, Tensor]:
        return self.assemble(self._rows(kind))

    def rows(self, kind: str = "batch") -> list[dict[str, Tensor]]:
        """Each row of `inputs(kind)` alone and unpadded."""
        return [self.assemble([row]) for row in self._rows(kind)]

    def _rows(self, kind: str) -> list[list[list[int] | Media]]:
        return [self.row(prompt, f"{kind}{r}") for r, prompt in enumerate(self.prompts[kind])]

    def row(self, prompt: Prompt, seed: str) -> list[list[int] | Media]:
        """A prompt with its text ids and media drawn; `assemble` makes a batch of such rows."""
        return [
            text_ids(item, seed, i) if isinstance(item, int) else self.media(item, f"{seed}.{i}")
            for i, item in enumerate(prompt)
        ]

    def assemble(self, rows: list[list[list[int] | Media]]) -> dict[str, Tensor]:
        """The left-padded batch of these rows, with the keys the family's processor would emit."""
        ids = [[BOS] if self.bos_first else [] for _ in rows]
        types = [[0] * len(row) for row in ids]
        for r, row in enumerate(rows):
            for item in row:
                new, value = (item.ids, KINDS[item.kind]) if isinstance(item, Media) else (item, 0)
                ids[r] += new
                types[r] += [
                    value if i in (IMAGE, VIDEO) and self.types_mark_media else int(i in self.typed) for i in new
                ]
        width = max(map(len, ids))
        out = {
            "input_ids": torch.tensor([[PAD] * (width - len(r)) + r for r in ids]),
            "attention_mask": torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in ids]),
        }
        if self.types:
            out[self.types] = torch.tensor([[0] * (width - len(r)) + r for r in types])
        media = [[item for item in row if isinstance(item, Media)] for row in rows]
        if any(media):
            out |= self.collate(media)
        return out

    def visual_positions(self, inputs: dict[str, Tensor]) -> list[list[Tensor]]:
        """Per row, per image or video in the order of the sequence: the indices of its placeholder tokens.

        A video whose frames are separated by text (Qwen3-VL, GLM-4.1V) is one entry.
        """
        ids = inputs["input_ids"]
        if self.types and self.types_mark_media:  # GLM's videos are made of image ids, only the types tell
            kinds = inputs[self.types]
        elif self.kinds_of:
            kinds = self.kinds_of(ids)
        else:
            kinds = (ids == self.image_token_id) * 1 + (ids == self.video_token_id) * 2
        left = {kind: list(counts) for kind, counts in self.lengths(inputs).items()}
        result = []
        for row in kinds:
            found = []
            for kind, value in KINDS.items():
                where = (row == value).nonzero()[:, 0]
                while len(where):
                    count = left[kind].pop(0)
                    assert count <= len(where), "placeholders and payload disagree"
                    found.append(where[:count])
                    where = where[count:]
            result.append(sorted(found, key=lambda where: int(where[0])))
        assert not any(left.values()), "payload left over"
        return result


def constant(count: int) -> Callable[[dict[str, Tensor]], dict[str, list[int]]]:
    """`lengths` of a family whose images all take the same number of tokens."""

    def lengths(inputs):
        return {"image": [count] * (int((inputs["input_ids"] == IMAGE).sum()) // count), "video": []}

    return lengths


def fixed_mask(n: int, ordinal: int) -> Tensor:
    """Keep mask (n,): round(0.4 n) tokens, at least one, chosen by (n, ordinal) and by nothing else."""
    order = torch.randperm(n, generator=seeded("mask", n, ordinal))
    keep = torch.zeros(n, dtype=torch.bool)
    keep[order[: max(1, math.floor(0.4 * n + 0.5))]] = True
    return keep


def dropped_from(
    family: Family, inputs: dict[str, Tensor], mask_fn: Callable[[int, int], Tensor] = fixed_mask
) -> Tensor:
    """(B, L): the tokens `mask_fn(n, ordinal)` does not keep; ordinal is the image's place in its own row."""
    dropped = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    for row, images in zip(dropped, family.visual_positions(inputs), strict=True):
        for ordinal, where in enumerate(images):
            row[where] = ~mask_fn(len(where), ordinal)
    return dropped
