"""The models a patch is measured on: LLaVA architectures of several sizes with random weights.

What a prefill costs depends on shapes only, so nothing is downloaded. The vision tower is kept small on purpose: a
real one would add the same time to both sides of a ratio and make every overhead look smaller than it is.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnknownNameError, neighbours

VOCAB, IMAGE, FIRST_TEXT = 1000, 5, 20
PATCH = 14


@dataclass(frozen=True)
class Size:
    """A model and a prompt: `text` tokens, half before and half behind the image's `grid` x `grid` ones."""

    name: str
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    grid: int
    dtype: torch.dtype = torch.float32
    text: int = 50
    keep: float = 0.25
    rounds: int = 20
    quick: int = 5
    kind: str = "prefill"  # or "decode", "entropy", "fixation", "fixation grid", "progressive", "tower"
    lengths: tuple[int, ...] = ()  # of a grid: visual tokens, in place of `grid`
    batches: tuple[int, ...] = ()  # of a grid
    vocabulary: int = VOCAB
    asked: bool = False  # measured only when named: it takes long
    # Ratios not to be exceeded: of keep-all to the unpatched model, and of a method to the ideal.
    goals: tuple[tuple[str, float], ...] = ()

    @property
    def visual(self) -> int:
        return self.grid**2

    @property
    def kept(self) -> int:
        return max(1, round(self.visual * self.keep))

    def describe(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        if self.lengths:
            visual, batch = (" ".join(map(str, some)) for some in (self.lengths, self.batches))
            layer = f"one of {self.layers} layers x {self.hidden}"
            return f"{layer}, {visual} visual + {self.text} text tokens, batch {batch}, {dtype}"
        return (
            f"{self.layers} layers x {self.hidden}, {self.visual} visual + {self.text} text tokens, {dtype}"
        )


SIZES = {
    s.name: s
    for s in (
        Size(
            "small-1k", 8, 256, 704, 8, 8, 32, rounds=40, quick=10,
            goals=(("keep-all", 1.03), ("uniform", 1.12), ("flashvlm", 1.15)),
        ),
        Size(
            "small-4k", 8, 256, 704, 8, 8, 64, rounds=20, quick=5,
            goals=(("keep-all", 1.03), ("uniform", 1.05), ("flashvlm", 1.07)),
        ),
        Size(
            "7b2", 2, 4096, 11008, 32, 32, 32, torch.bfloat16, rounds=20, quick=3,
            goals=(("keep-all", 1.03), ("uniform", 1.03), ("flashvlm", 1.05)),
        ),
        Size(
            "decode28", 28, 256, 704, 8, 8, 32, rounds=40, quick=10, kind="decode",
            goals=(("step", 1.03), ("ops", 30)),
        ),
        Size(  # no model: a layer's queries at LLaVA-1.5's size
            "entropy", 1, 4096, 11008, 32, 32, 24, text=0, rounds=24, quick=5, kind="entropy",
            goals=(("heads x heads", 0.1), ("share of q, k, v", 0.05)),
        ),
        Size(  # attention alone of a page in a 7B model; reads an ideal 0.201 with 3 of 28 layers focal
            "fixation", 28, 3584, 18944, 28, 4, 70, torch.bfloat16, text=300, keep=0.05, rounds=20, quick=3,
            kind="fixation", goals=(("batch 1", 0.502), ("batch 8", 0.402)),
        ),
        Size(  # no model: frames as LLaVA-OneVision reads them; 0.15 s, its own products, late frames to early ones
            "progressive", 1, 896, 4864, 14, 2, 14, text=0, keep=0.1, rounds=20, quick=3, kind="progressive",
            goals=(("short", 1.0), ("long", 1.5), ("late", 1.15)),
        ),
        Size(  # and the same layer with its weights, over pages and batches
            "fixation-grid", 28, 3584, 18944, 28, 4, 70, torch.bfloat16, text=300, keep=0.05, rounds=20, quick=4,
            kind="fixation grid", lengths=(500, 1000, 2000, 4900, 16000), batches=(1, 4, 8, 32), vocabulary=152064,
            asked=True,
        ),
        Size("tower-196", 12, 768, 3072, 12, 12, 14, text=0, rounds=20, quick=3, kind="tower"),  # ViT-B/16 at 224
        Size("tower-576", 12, 768, 3072, 12, 12, 24, text=0, rounds=20, quick=3, kind="tower"),  # and at 384 pixels
    )
}  # fmt: skip


def size(name: str) -> Size:
    """A size by name."""
    if name not in SIZES:
        raise UnknownNameError(f"no bench size named {name!r}; {neighbours(name, SIZES)}")
    return SIZES[name]


def build(size: Size, seed: int = 0) -> Any:
    """The unpatched model of a size, in evaluation mode on the CPU."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=PATCH * size.grid,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=8192,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(size.dtype)  # a 7B layer is never held in float32
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlavaForConditionalGeneration(
                LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
            )
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)


def twin(model: nn.Module) -> Any:
    """A copy of the modules over the same weights: one can be patched while the other stays as it was."""
    memo = {id(t): t for t in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, memo)


def prompt(size: Size, batch: int = 1, padding: int = 0) -> dict[str, Tensor]:
    """What the processor would make: ids, pixels and, with `padding` left tokens in row 0, a mask."""
    words = _words(size.text)
    ids = torch.cat([words[: size.text // 2], torch.full((size.visual,), IMAGE), words[size.text // 2 :]])
    generator = torch.Generator().manual_seed(1)
    side = PATCH * size.grid
    pixels = torch.randn(batch, 3, side, side, generator=generator).to(size.dtype)
    return {**_rows(ids, batch, padding), "pixel_values": pixels}


def short_prompt(size: Size, batch: int = 1, padding: int = 0) -> dict[str, Tensor]:
    """A text prompt of the length that remains: what a model without any pruning would have to read."""
    return _rows(_words(size.text + size.kept), batch, padding)


def _words(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(FIRST_TEXT, VOCAB, (count,), generator=generator)


def _rows(ids: Tensor, batch: int, padding: int) -> dict[str, Tensor]:
    rows = ids.expand(batch, -1)
    if not padding:
        return {"input_ids": rows.clone()}
    rows = torch.cat([torch.zeros(batch, padding, dtype=torch.long), rows], dim=1)
    rows[1:] = torch.cat([rows[1:, padding:], _words(padding).expand(batch - 1, -1)], dim=1)
    mask = torch.ones_like(rows)
    mask[0, :padding] = 0
    return {"input_ids": rows, "attention_mask": mask}
