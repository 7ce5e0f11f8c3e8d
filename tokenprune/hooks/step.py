"""One forward of a patched model: which tokens are still alive, and every argument of a layer cut down to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import LongTensor, Tensor, nn

from ..errors import PatchError
from .cache import FILLER, KeptMap, Logical, LogicalStaticLayer, cache_layer, is_logical, make_logical
from .layout import Layout
from .masks import causal, remap


class Settled(NamedTuple):
    """A mask in physical terms, and what it was made of: it serves every layer for which that is the same."""

    map: KeptMap | None
    stored: int | None  # keys, None for a cache layer that does not count them in numbers
    mask: Any  # as transformers made it
    result: Any


UNSETTLED = Settled(None, None, None, None)


class Step:
    """State of one forward. `index` (B, P) is the logical position of every physical token, None while uncut."""

    def __init__(self, length: int, batch: int, owner: Any, implementation: str) -> None:
        self.length = length  # logical tokens of this call
        self.batch = batch
        self.owner = owner
        self.implementation = implementation
        self.layout: Layout | None = None
        self.question: Any = None  # cuts.Question of a prefill whose method reads it
        self.lengths: dict[int, int] = {}  # layer -> physical tokens from it on
        self.filler_past = False  # the cache holds filler, so even a missing mask needs one
        self.index: LongTensor | None = None
        self.flat: LongTensor | None = None  # (B * P,) into (B * L) rows; filler points at row 0
        self.ragged = False
        self.merges: list[
            Callable[[Tensor, Tensor], Tensor]
        ] = []  # (features, visual mask) -> features, DeepStack
        self._gathered: dict[Any, tuple[Any, Any]] = {}
        self.settled: dict[type, Settled] = {}  # by kind of cache layer; a layer's hook looks here first
        self._maps: dict[Any, tuple[Any, ...]] = {}
        self.entered: dict[int, Any] = {}  # cache slot -> the mask of the layer that wrote there

    @property
    def physical(self) -> int:
        """Tokens per row inside the decoder from here on."""
        return self.length if self.index is None else self.index.shape[1]

    @property
    def solid(self) -> int:
        """Tokens at the end of every row that are text, and so alive."""
        return 0 if self.layout is None else self.layout.text_behind

    # -- cutting -----------------------------------------------------------------------------------------------

    def cut(self, alive: Tensor, counts: list[int]) -> LongTensor:
        """Go on with the tokens of `alive` (B, L); row b has counts[b] of them, the longest sets P.

        Shorter rows are filled on the left, where padding belongs, by slots that every mask hides. Returns where
        the tokens stand among those alive so far, to shorten the hidden states by.
        """
        longest = max(counts)
        order = alive.to(torch.uint8).argsort(dim=1, stable=True)  # the kept ones, ascending, come last
        index: Any = order[:, self.length - longest :]
        self.ragged = min(counts) != longest
        source = index
        if self.ragged:
            missing = torch.tensor([longest - c for c in counts], device=index.device)
            filler = torch.arange(longest, device=index.device) < missing[:, None]
            source = index.masked_fill(filler, 0)
            index = index.masked_fill(filler, FILLER)
        rows = torch.arange(self.batch, device=index.device)[:, None] * self.length
        flat: Any = (source + rows).flatten()
        here = self.rows_of(flat)
        self.index, self.flat = index, flat
        self._gathered.clear()
        self._maps.clear()
        return here

    def rows_of(self, flat: LongTensor) -> LongTensor:
        """Where logical tokens, flat in (B * L), stand among the (B * P) physical ones. They must be alive."""
        if self.index is None:
            return flat
        batch, length = self.batch, self.length
        base = torch.arange(batch, device=self.index.device)[:, None] * length
        logical = (self.index + base).masked_fill(
            self.index < 0, batch * length
        )  # filler: a slot nobody asks for
        place = torch.zeros(batch * length + 1, dtype=torch.long, device=self.index.device)
        place[logical.flatten()] = torch.arange(logical.numel(), device=self.index.device)
        return place[flat]  # type: ignore[return-value]

    def scatter(self, hidden: Tensor) -> Tensor:
        """(B, P, D) back to (B, L, D), zeros where tokens were dropped."""
        if self.index is None or hidden.shape[-2] == self.length:
            return hidden
        if self.ragged:  # filler goes to a slot behind the end that is cut off again
            full = hidden.new_zeros(self.batch, self.length + 1, hidden.shape[-1])
            target = self.index.to(hidden.device).masked_fill(self.index < 0, self.length)
            return full.scatter(1, target[..., None].expand_as(hidden), hidden)[:, : self.length]
        full = hidden.new_zeros(self.batch * self.length, hidden.shape[-1])
        flat = self.flat.to(hidden.device)  # type: ignore[union-attr]
        return full.index_copy(0, flat, hidden.flatten(0, 1)).unflatten(0, (self.batch, self.length))

    # -- arguments of a layer ----------------------------------------------------------------------------------

    def gather(self, name: str, value: Any) -> Any:
        """One argument of a decoder layer, cut to the tokens alive. Repeated arguments are cut once."""
        if isinstance(value, tuple):
            return tuple(self.gather(name, v) for v in value)
        if not isinstance(value, Tensor) or self.flat is None:
            return value
        known = self._gathered.get(id(value))
        if known is None:
            known = (value, self._cut_tensor(name, value))  # holding `value` keeps its id from being reused
            self._gathered[id(value)] = known
        return known[1]

    def _cut_tensor(self, name: str, value: Tensor) -> Tensor:
        length = self.length
        if value.dim() >= 3 and value.shape[-2] == length:  # rotary tables, per-layer inputs: (..., B, L, d)
            if value.shape[-3] == 1 and self.batch > 1:
                value = value.expand(*value.shape[:-3], self.batch, -1, -1)
            flat = self.flat.to(value.device)  # type: ignore[union-attr]
            cut = value.flatten(-3, -2).index_select(-2, flat)
            if value.stride(-1) != 1:  # as it lay: some kernels round by the layout
                cut = cut.mT.contiguous().mT
            return cut.unflatten(-2, (self.batch, -1))
        if (
            not value.dtype.is_floating_point and value.dim() >= 2 and value.shape[-1] == length
        ):  # ids: (..., B, L)
            if value.shape[-2] == 1 and self.batch > 1:
                value = value.expand(*value.shape[:-2], self.batch, -1)
            cut = value.flatten(-2).index_select(-1, self.flat.to(value.device))  # type: ignore[union-attr]
            return cut.unflatten(-1, (self.batch, -1))
        if length in value.shape:
            raise PatchError(
                f"a decoder layer got {name} of shape {tuple(value.shape)}, which has the sequence length {length} in "
                "a place this version does not know; please report the model"
            )
        return value

    # -- cache and mask ----------------------------------------------------------------------------------------

    def enter_state_layer(self, cache: Any, index: int, mask: Any) -> Any:
        """The (B, P) padding mask of a layer that carries a state and stores no keys, None where nothing is padded.

        Raises where rows of unequal length go on from an earlier turn: the filler in front of the shorter ones would
        count as a token of the conversation.
        """
        if self.index is None:
            return mask
        if self.ragged and cache is not None and any(cache.layers[index].has_previous_state.values()):
            raise PatchError(
                "rows of a batch that keep unequal numbers of tokens cannot go on from a cache in a model with linear "
                "attention or convolution layers; go row by row, or use a method with exact counts"
            )
        if mask is not None:
            return remap(mask, None, self.index, self.batch)
        return (self.index >= 0).long() if self.ragged else None

    def enter_sharing_layer(self, lender: int, rows: int) -> Any:
        """The mask of a layer that reads the keys of cache slot `lender`, for the last `rows` tokens alive."""
        mask = self.entered[lender]
        return mask if mask is None or mask.dim() == 2 else mask[:, :, -rows:]

    def enter_layer(self, cache: Any, index: int, mask: Any, device: torch.device) -> Any:
        """Prepare the cache layer for what this layer will store and return the mask in physical terms."""
        self.entered[index] = result = self._enter(cache, index, mask, device)
        return result

    def _enter(self, cache: Any, index: int, mask: Any, device: torch.device) -> Any:
        layer = None if cache is None else cache_layer(cache, index)
        result = self._physical_mask(cache, index, layer, mask, device)
        if self.index is None and isinstance(layer, Logical):  # decode: layers of one history share one mask
            stored = layer.stored if layer.counts else None
            self.settled[type(layer)] = Settled(layer.map, stored, mask, result)
        return result

    def _physical_mask(self, cache: Any, index: int, layer: Any, mask: Any, device: torch.device) -> Any:
        if self.index is not None and layer is not None and hasattr(layer, "get_mask_sizes"):
            layer = make_logical(cache, index, self.owner, self._identity)
        pruned_past = is_logical(layer)
        if self.index is None and not pruned_past:
            return mask
        if self.index is None and type(layer) is LogicalStaticLayer:  # of a compiled step: tensors only
            return mask if mask is None else remap(mask, None, layer.map.slots(layer.reach), self.batch)
        history, stored, width, offset = self._history(layer, pruned_past)
        if mask is None and not (self.ragged or history.ragged):
            return None
        key = (id(mask), id(history), stored, width, offset)
        known = self._gathered.get(key)
        if known is None:
            static = type(layer) is LogicalStaticLayer
            columns = history.slots(width) if static else history.columns(stored, width) - offset
            known = (mask, self._new_mask(mask, history, stored, columns, offset, device))
            self._gathered[key] = known
        return known[1]

    def _new_mask(
        self, mask: Any, history: KeptMap, stored: int, columns: Any, offset: int, device: torch.device
    ) -> Tensor:
        """`columns` (B, M) of the mask, in rows of the tokens alive; where there was none, one for ragged rows."""
        if mask is not None:
            if not isinstance(mask, Tensor):
                raise PatchError(
                    f"attention masks of type {type(mask).__name__} are not supported; use 'sdpa'"
                )
            return remap(mask, self.index, columns, self.batch)
        past = history.dropped + stored - self.length
        rows: Any = self.index
        if rows is None:
            rows = torch.arange(self.length, device=device).expand(self.batch, -1)
        absolute = rows.masked_fill(rows < 0, FILLER - past) + past
        return causal(absolute, columns + offset, self.implementation)

    def _identity(self, n: int) -> KeptMap:
        """The map of a plain layer with n keys: one object for all layers of equal length."""
        return self._remember(("identity", n), lambda: KeptMap(self._empty(), 0, False))

    def _empty(self) -> Any:
        return torch.empty(self.batch, 0, dtype=torch.long, device=self.index.device)  # type: ignore[union-attr]

    def _history(self, layer: Any, logical: bool) -> tuple[KeptMap, int, int, int]:
        """(map after this forward, keys seen then, keys the attention will read, logical index of mask column 0)."""
        if not logical:  # no cache: this call is all there is
            after = self._remember("alone", lambda: KeptMap(self.index, self.length, self.ragged))  # type: ignore[arg-type]
            return after, self.physical, self.physical, 0
        stored, before = int(layer.stored), layer.map
        after = before
        if self.index is not None:
            after = self._remember(
                ("after", id(before), stored), lambda: self._extend(before, stored), before
            )
            layer.pending = (after, self.length)
        if type(layer) is LogicalStaticLayer:
            after.slots(layer.reach)  # now, not inside a compiled step
            return after, stored + self.physical, layer.reach, 0
        held = layer.keys.shape[-2] if layer.is_initialized and layer.keys is not None else 0
        width = held + self.physical
        if getattr(layer, "record_past", False):
            width = min(width, layer.sliding_window - 1 + self.physical)
        return after, stored + self.physical, width, layer.get_mask_sizes(self.length)[1]

    def _extend(self, before: KeptMap, stored: int) -> KeptMap:
        past = before.dropped + stored
        new = self.index.masked_fill(self.index < 0, FILLER - past) + past  # type: ignore[union-attr]
        kept: Any = torch.cat([before.columns(stored, stored), new], dim=1) if stored else new
        return KeptMap(kept, past + self.length, before.ragged or self.ragged, self.solid)

    def _remember(self, key: Any, make: Callable[[], KeptMap], hold: Any = None) -> KeptMap:
        known = self._maps.get(key)
        if known is None:
            known = self._maps[key] = (make(), hold)
        return known[0]


def layer_index(layer: nn.Module, fallback: int) -> int:
    """The cache slot a decoder layer writes to."""
    for module in (layer, getattr(layer, "self_attn", None)):
        index = getattr(module, "layer_idx", None)
        if isinstance(index, int):
            return index
    return fallback
