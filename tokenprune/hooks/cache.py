"""Cache layers that store fewer keys than the sequence has tokens, and still answer in logical units.

Facts of transformers this rests on: masks are sized by `get_mask_sizes` and positions by `get_seq_length` of the
first full-attention layer; `generate` slices the next turn's ids by `get_seq_length`. With logical answers they all
agree although layers differ in length. The state of a conversation lives here, never on the model.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import LongTensor, Tensor
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticLayer,
)

from ..errors import PatchError

FILLER = -1
"""Logical index of a physical slot that holds nothing; such slots stand left and are always masked."""


class KeptMap:
    """Logical index of every stored key: `kept` (B, P) and behind it an unbroken tail from `tail_start` on.

    The last `solid` columns of `kept` are such a run, too, in every row: text behind the last image.
    Immutable and shared by all layers with the same history, so that a mask is remapped once per step.
    """

    def __init__(self, kept: LongTensor, tail_start: int, ragged: bool, solid: int = 0) -> None:
        self.kept = kept
        self.tail_start = tail_start
        self.ragged = ragged
        self.solid = solid
        self._derived: tuple[Any, KeptMap] | None = None
        self._slots: LongTensor | None = None

    @property
    def dropped(self) -> int:
        """Logical tokens up to `tail_start` that have no slot."""
        return self.tail_start - self.kept.shape[1]

    def columns(self, stored: int, width: int) -> LongTensor:
        """(B, width) logical indices of the last `width` of `stored` keys."""
        rows, p = self.kept.shape
        if stored == p:
            return self.kept[:, p - width :]  # type: ignore[return-value]
        tail = torch.arange(self.tail_start, self.tail_start + stored - p, device=self.kept.device)
        full = torch.cat([self.kept, tail.expand(rows, -1)], dim=1)
        return full[:, stored - width :]  # type: ignore[return-value]

    def slots(self, size: int) -> LongTensor:
        """(B, size) logical indices of all slots of buffers that take `size` tokens, FILLER where none can come."""
        if self._slots is None or self._slots.shape[1] != size:
            columns = self.columns(size, size)
            self._slots = columns.masked_fill(columns >= size, FILLER)  # type: ignore[assignment]
        return self._slots  # type: ignore[return-value]

    def select(self, rows: Tensor) -> KeptMap:
        """The map after its batch rows were reordered. Layers ask one after the other with the same tensor."""
        if self._derived is None or self._derived[0] is not rows:
            kept: Any = self.kept[rows.to(self.kept.device)]
            self._derived = (rows, KeptMap(kept, self.tail_start, self.ragged, self.solid))
        return self._derived[1]

    def repeat(self, repeats: int) -> KeptMap:
        """The map after each batch row was repeated."""
        if self._derived is None or self._derived[0] != ("repeat", repeats):
            kept: Any = self.kept.repeat_interleave(repeats, dim=0)
            self._derived = (("repeat", repeats), KeptMap(kept, self.tail_start, self.ragged, self.solid))
        return self._derived[1]

    def shorten(self, tokens: int) -> KeptMap:
        """The map after its last `tokens` columns, all of them solid, were taken off."""
        if self._derived is None or self._derived[0] != ("shorten", tokens):
            kept: Any = self.kept[:, : self.kept.shape[1] - tokens]
            cut = KeptMap(kept, self.tail_start - tokens, self.ragged, self.solid - tokens)
            self._derived = (("shorten", tokens), cut)
        return self._derived[1]


class Logical:
    """What all kinds share. `map` is the history up to the last cut; `pending` the cut under way.

    `update` runs in every layer and step, so it does what `_advance` does where there is no cut, without a call.
    """

    _layer_type = None  # else transformers would register this class for every new cache

    map: KeptMap
    owner: Any  # the engine; a pruned cache outside its patch is an error, not a wrong answer
    pending: tuple[KeptMap, int] | None  # (map after this forward, logical tokens of this forward)
    stored: int  # keys seen since the start, trimmed ones included
    counts: ClassVar[bool] = True  # `stored` is a number

    def begin(self, stored: int, history: KeptMap, owner: Any) -> None:
        """What a layer that was plain so far, with `stored` keys, has to know from now on."""
        self.stored, self.map, self.owner, self.pending = stored, history, owner, None

    def _advance(self, new: int) -> int:
        """Count `new` physical keys; return how many logical tokens they stand for."""
        self.owner.check_cache_use()
        self.stored += new
        if self.pending is None:
            return new
        self.map, logical = self.pending
        self.pending = None
        return logical

    @property
    def logical_length(self) -> int:
        return self.map.dropped + self.stored

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[misc]
        self.map = self.map.select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        self.map = self.map.repeat(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)  # type: ignore[misc]
        self.map = self.map.select(indices)

    def _crop_map(self, tokens: int) -> None:
        """Forget the last keys, up to the last image. Raises where a dropped token would have to come off, too."""
        if tokens > 0:
            raise PatchError(f"crop({tokens}): give the tokens to take off the end as a negative number")
        inside = abs(tokens) - (self.stored - self.map.kept.shape[1])
        if inside > self.map.solid:
            raise PatchError(
                "a pruned cache can only be cropped behind its last image; start the turn anew instead"
            )
        if inside > 0:
            self.map = self.map.shorten(inside)

    def reset(self) -> None:
        self.keys = self.values = None  # before 5.23 they were zeroed and kept their length
        self.is_initialized = False
        super().reset()  # type: ignore[misc]
        empty: Any = torch.empty(self.map.kept.shape[0], 0, dtype=torch.long, device=self.map.kept.device)
        self.map, self.stored, self.pending = KeptMap(empty, 0, False), 0, None


class LogicalLayer(Logical, DynamicLayer):
    """Full attention."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self.pending is None and self.owner.busy:
            self.stored += key_states.shape[-2]
        else:
            self._advance(key_states.shape[-2])
        return super().update(key_states, value_states, *args, **kwargs)

    def get_seq_length(self) -> int:
        return self.logical_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.logical_length + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        self._crop_map(tokens_to_remove)
        super().crop(tokens_to_remove)
        self.stored -= abs(tokens_to_remove)


class LogicalSlidingLayer(Logical, DynamicSlidingWindowLayer):
    """Sliding window. `cumulative_length` is logical, so the inherited answers are.

    The last window - 1 physical keys hold all that the last window - 1 logical tokens left; what is older is masked.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        before, logical = self.cumulative_length, key_states.shape[-2]
        if self.pending is None and self.owner.busy:
            self.stored += logical
        else:
            logical = self._advance(logical)
        states = super().update(key_states, value_states, *args, **kwargs)
        self.cumulative_length = before + logical
        return states

    def crop(self, tokens_to_remove: int) -> None:
        self._crop_map(tokens_to_remove)
        if self.get_seq_length() >= self.sliding_window:
            super().crop(tokens_to_remove)
        else:
            DynamicLayer.crop(self, tokens_to_remove)
            self.cumulative_length -= abs(tokens_to_remove)
        self.stored -= abs(tokens_to_remove)


class LogicalStaticLayer(Logical, StaticLayer):
    """Full attention in buffers of fixed size, for compiled decoding.

    `cumulative_length` is physical and a tensor: nothing here may change from step to step but tensors, else each
    step would be compiled anew. The buffers keep their size; shorter ones need a smaller `max_cache_len`.
    """

    counts = False

    @property
    def stored(self) -> Any:  # type: ignore[override]
        """Physical keys, a tensor once there are any."""
        return self.cumulative_length if self.is_initialized else 0

    @property
    def reach(self) -> int:
        """Slots that the attention reads, filled or not."""
        return self.max_cache_len

    def begin(self, stored: int, history: KeptMap, owner: Any) -> None:
        self.map, self.owner, self.pending = history, owner, None

    def _advance(self, new: int) -> int:
        self.owner.check_cache_use()
        if self.pending is not None:
            (self.map, _), self.pending = self.pending, None
        return new

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self.pending is not None or not self.owner.busy:
            self._advance(key_states.shape[-2])
        return super().update(key_states, value_states, *args, **kwargs)

    def get_seq_length(self) -> Any:
        return self.logical_length

    def reset(self) -> None:
        StaticLayer.reset(self)
        empty: Any = self.map.kept[:, :0]
        self.map, self.pending = KeptMap(empty, 0, False), None


_LOGICAL = {
    DynamicLayer: LogicalLayer,
    DynamicSlidingWindowLayer: LogicalSlidingLayer,
    StaticLayer: LogicalStaticLayer,
}


def is_logical(layer: Any) -> bool:
    """The layer holds a pruned history."""
    return isinstance(layer, Logical)


def has_keys(layer: Any) -> bool:
    """The cache layer stores keys of tokens: not the state of a linear attention, nor nothing."""
    return hasattr(layer, "get_mask_sizes")


def state_layers(config: Any) -> frozenset[int]:
    """Decoder layers that carry a state from token to token (linear attention, short convolutions) and no keys."""
    layers = DynamicCache(config=config).layers
    return frozenset(i for i, c in enumerate(layers) if hasattr(c, "update_conv_state") and not has_keys(c))


def owner_of(cache: Any) -> Any:
    """The engine that pruned this cache, or None."""
    return getattr(cache, "_tokenprune_owner", None)


def cache_layer(cache: Cache, index: int) -> Any:
    """Layer `index` of the cache, made now where the cache makes its layers at the first update."""
    while len(cache.layers) <= index:
        cache.layers.append(cache.layer_class_to_replicate())  # type: ignore[misc]
    return cache.layers[index]


def make_logical(cache: Cache, index: int, owner: Any, identity: Any) -> Any:
    """Replace a plain layer by its logical counterpart that shares its state. `identity(n)` maps n plain keys."""
    layer = cache_layer(cache, index)
    if is_logical(layer):
        return layer
    kind = _LOGICAL.get(getattr(type(layer), "_plain", type(layer)))  # one that carries a gaze gets it anew
    if kind is None:
        raise PatchError(
            f"a cache with {type(layer).__name__} layers cannot hold a pruned sequence; use the default dynamic cache "
            "(cache_implementation=None, no past_key_values of another kind)"
        )
    new = kind.__new__(kind)
    new.__dict__ = layer.__dict__
    stored = int(layer.get_seq_length())
    new.begin(stored, identity(stored), owner)
    cache.layers[index] = new
    cache._tokenprune_owner = owner  # type: ignore[attr-defined]
    return new
