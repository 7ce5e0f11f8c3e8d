"""The reference for layers that carry a state from token to token: linear attention, short convolutions.

Masking a column does not take a token out of such a layer. So every row is run alone, layer by layer: the layers < k
on all of its tokens, the layers >= k on those that stay, each at its own position. There is no cache: a conversation
keeps what the text model was given so far and computes all of it anew at every call. Nothing of tokenprune.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.modeling_outputs import MoeModelOutputWithPast


class History(DynamicCache):
    """In place of keys and states: all inputs of the text model so far. Made from the cache that a call brings."""

    embeds: Tensor | None = None  # (B, n, D)
    positions: Tensor | None = None  # (R, B, n), R = 1, or 3 with M-RoPE
    real: Tensor | None = None  # (B, n), False at padding

    def take(self, embeds: Tensor, positions: Tensor, real: Tensor) -> None:
        if self.embeds is not None:
            most = max(len(self.positions), len(positions))
            parts = [p.expand(most, -1, -1) for p in (self.positions, positions)]
            embeds, real = torch.cat([self.embeds, embeds], 1), torch.cat([self.real, real], 1)
            positions = torch.cat(parts, -1)
        self.embeds, self.positions, self.real = embeds, positions, real

    def get_seq_length(self, layer_idx: int = 0, **_: Any) -> int:
        return 0 if self.embeds is None else self.embeds.shape[1]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.embeds, self.real = self.embeds[beam_idx], self.real[beam_idx]
        self.positions = self.positions[:, beam_idx]

    def crop(self, tokens: int) -> None:
        length = tokens if tokens > 0 else self.get_seq_length() + tokens
        self.embeds, self.real = self.embeds[:, :length], self.real[:, :length]
        self.positions = self.positions[..., :length]


def run_row(text: nn.Module, hidden: Tensor, positions: Tensor, keep: Tensor, k: int) -> Tensor:
    """(kept, D) of one row: (n, D) inputs at (R, n) positions, of which `keep` (n,) goes on at layer k."""
    hidden, positions = hidden[None], positions[:, None]
    for place, layer in enumerate(text.layers):
        if place == k:
            hidden, positions = hidden[:, keep], positions[..., keep]
        n = hidden.shape[1]
        mask = None
        if text.config.layer_types[place] == "full_attention":
            lowest = torch.finfo(hidden.dtype).min
            mask = torch.full((n, n), lowest, dtype=hidden.dtype).triu(1)[None, None]
        grids = "mrope_section" in text.config.rope_parameters
        rotary = text.rotary_emb(hidden, positions.expand(3, -1, -1) if grids else positions[0])
        hidden = layer(hidden, position_embeddings=rotary, attention_mask=mask)
    hidden = hidden[:, keep] if k >= len(text.layers) else hidden
    norm = text.norm if hasattr(text, "norm") else text.embedding_norm
    return norm(hidden)[0]


@contextmanager
def rows_alone(text: nn.Module, dropped: Tensor, k: int) -> Iterator[None]:
    """The text model without the tokens of `dropped` (B, L), the first L of what is said, in the layers >= k.

    Dropped and padded positions are zeros in its output. For whatever may be called inside: turns, beams, drafts.
    """

    def forward(
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        **_,
    ):
        embeds = text.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        batch, new = embeds.shape[:2]
        cache = DynamicCache(config=text.config) if past_key_values is None else past_key_values
        if not isinstance(cache, History):
            cache.__class__ = History
        if position_ids is None:
            position_ids = torch.arange(new)[None] + cache.get_seq_length()
        positions = position_ids if position_ids.ndim == 3 else position_ids[None]
        positions = (positions[1:] if len(positions) == 4 else positions).expand(-1, batch, -1)
        real = torch.ones(batch, new) if attention_mask is None else attention_mask[:, -new:]
        cache.take(embeds, positions, real.bool())
        total = cache.get_seq_length()
        gone = dropped.repeat_interleave(batch // len(dropped), 0)
        gone = nn.functional.pad(gone, (0, max(total - gone.shape[1], 0)))[:, :total]
        out = []
        for row, (real, lost) in enumerate(zip(cache.real, gone)):
            done = run_row(text, cache.embeds[row, real], cache.positions[:, row, real], ~lost[real], k)
            full = done.new_zeros(total, done.shape[-1])
            out.append(full.index_copy(0, (real & ~lost).nonzero()[:, 0], done)[-new:])
        given = cache if use_cache or past_key_values is not None else None
        return MoeModelOutputWithPast(last_hidden_state=torch.stack(out), past_key_values=given)

    text.forward = forward
    try:
        yield
    finally:
        del text.forward
