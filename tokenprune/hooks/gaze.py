"""What a conversation looks at while it is being written: the state of a decode-stage method, living in its cache.

It follows the cache through reordering, repetition, cropping and reset, because it hangs on the cache's first layer
that has keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..kernels.decode import flat_rows, places
from .cache import FILLER, cache_layer, has_keys, is_logical


@dataclass(eq=False)
class Columns:
    """Where the keys of one cache history lie. -1: not there."""

    visual: Tensor  # (B, V)
    rest: Tensor  # (B, R) every other key of the prompt
    prompt: int  # physical keys of the prompt; what comes later is all read
    gaps: bool  # some entry is -1
    history: Any  # keeps the map alive whose id these columns are filed under


@dataclass(eq=False)
class Gaze:
    """State of one decode-stage method for one cache."""

    owner: Any  # the engine
    logical: Tensor  # (B, V) places of the visual tokens of all turns, FILLER behind a row's own
    counts: list[int]  # of them, per row
    prompt: int  # logical tokens up to the end of the latest prefill with images
    chosen: Tensor | None = None  # (B, V) or (B, Hkv, V), the latest choice
    coords: Tensor | None = (
        None  # (B, V, 4) of them, parts numbered through a row's images; NEWLINE behind its own
    )
    state: dict[int, dict[str, Tensor]] = field(default_factory=dict)  # the method's own, of each focal layer
    version: int = 0  # of `chosen`
    trail: list[tuple[int, int, Tensor]] = field(default_factory=list)  # (step, layer, (B, k) or (B, Hkv, k))
    steps: int = 0
    visits: int = 0  # of focal layers that may be asked to read less
    spared: Tensor | None = None  # (B,) shares of a row's visual keys they did not read, summed
    _columns: dict[int, Columns] = field(default_factory=dict)
    _index: dict[Any, Any] = field(default_factory=dict)

    @property
    def most(self) -> int:
        """Visual tokens of the row that has most."""
        return self.logical.shape[1]

    # -- following the cache -----------------------------------------------------------------------------------

    def map_rows(self, change: Callable[[Tensor], Tensor], rows: Callable[[list[int]], list[int]]) -> None:
        """Apply a change of batch rows to everything that has them."""
        self.logical = change(self.logical)
        self.chosen = None if self.chosen is None else change(self.chosen)
        self.coords = None if self.coords is None else change(self.coords)
        self.spared = None if self.spared is None else change(self.spared)
        self.state = {layer: {k: change(v) for k, v in own.items()} for layer, own in self.state.items()}
        self.counts = rows(self.counts)
        self.forget_places()

    def select(self, index: Tensor) -> None:
        picked = index.tolist()
        self.map_rows(lambda t: t[index.to(t.device)], lambda c: [c[i] for i in picked])

    def repeat(self, times: int) -> None:
        self.map_rows(lambda t: t.repeat_interleave(times, 0), lambda c: [n for n in c for _ in range(times)])

    def forget_places(self) -> None:
        """Where keys lie has changed."""
        self._columns.clear()
        self._index.clear()
        self.version += 1

    # -- where keys lie ----------------------------------------------------------------------------------------

    def columns(self, layer: Any) -> Columns:
        """Of one cache layer; layers of one history share them."""
        history = layer.map if is_logical(layer) else None
        known = self._columns.get(id(history))
        if known is None:
            known = self._columns[id(history)] = self._find(history)
        return known

    def _find(self, history: Any) -> Columns:
        device, batch = self.logical.device, self.logical.shape[0]
        if history is None:
            stored = self.prompt
            kept = torch.arange(stored, device=device).expand(batch, -1)
        else:
            stored = history.kept.shape[1] + self.prompt - history.tail_start
            kept = history.columns(stored, stored).to(device)
        slot = kept.masked_fill(kept < 0, self.prompt)  # filler goes to a slot behind the end
        physical = torch.full((batch, self.prompt + 1), FILLER, device=device)
        physical.scatter_(1, slot, torch.arange(stored, device=device).expand(batch, -1))
        own = self.logical.masked_fill(self.logical < 0, self.prompt)
        is_visual = torch.zeros_like(physical, dtype=torch.bool).scatter_(1, own, True)
        physical[:, self.prompt] = FILLER
        visual = physical.gather(1, own)
        text = ~is_visual.gather(1, slot) & (kept >= 0)
        width = self.prompt - min(self.counts)
        order = text.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :width]
        rest = order.masked_fill(~text.gather(1, order), FILLER)
        gaps = history is not None or len(set(self.counts)) > 1
        return Columns(visual, rest, stored, gaps, history)

    def read(self, layer: Any, stored: int, heads: int, most: int) -> tuple[Tensor, Tensor, bool]:
        """What a sparse layer reads now: the prompt's other keys, the chosen ones, all that was written since.

        (rows for the kernel, their columns (B, n) or (B, Hkv, n) with -1 where there is none, whether there is a -1).
        """
        columns = self.columns(layer)
        key = (id(columns), stored, self.version)
        known = self._index.get(key)
        if known is not None:
            return known
        if self._index and next(iter(self._index))[1:] != key[1:]:
            self._index.clear()
        rows, full = self.locate(columns, self.picked(most), stored, heads)
        known = self._index[key] = (rows, full, columns.gaps)
        return known

    def locate(self, columns: Columns, picked: Tensor, stored: int, heads: int) -> tuple[Tensor, Tensor]:
        """(rows for the kernel, their columns) of the prompt's other keys, the `picked` ones, all written since."""
        visual = columns.visual
        if picked.dim() == 3:
            heads = picked.shape[1]
            visual = visual[:, None].expand(-1, heads, -1)
        spots = visual.gather(-1, picked.clamp(min=0)).masked_fill(picked < 0, FILLER)
        written = torch.arange(columns.prompt, stored, device=spots.device).expand(spots.shape[0], -1)
        parts = [columns.rest, written]
        if picked.dim() == 3:
            parts = [p[:, None].expand(-1, heads, -1) for p in parts]
        full = torch.cat([parts[0], spots, parts[1]], dim=-1)
        return flat_rows(full.clamp(min=0), heads, stored), full

    def picked(self, most: int) -> Tensor:
        """(B, most) or (B, Hkv, most) places among the visual tokens of the latest choice, -1 behind them."""
        assert self.chosen is not None
        return places(self.chosen, most)


class _Gazing:
    """A cache layer that carries a `gaze`. Mixed in front of the layer's own class."""

    _layer_type = None  # not one of transformers' own kinds
    _plain: type

    gaze: Gaze | None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[misc]
        if self.gaze is not None:
            self.gaze.select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        if self.gaze is not None:
            self.gaze.repeat(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)  # type: ignore[misc]
        if self.gaze is not None:
            self.gaze.select(indices)

    def crop(self, *args: Any, **kwargs: Any) -> None:
        super().crop(*args, **kwargs)  # type: ignore[misc]
        if self.gaze is not None and self.get_seq_length() < self.gaze.prompt:  # type: ignore[attr-defined]
            self.gaze = None

    def reset(self) -> None:
        super().reset()  # type: ignore[misc]
        self.gaze = None


_KINDS: dict[type, type] = {}


def attach(cache: Any, gaze: Gaze) -> None:
    """Hang `gaze` on the cache's first layer that has keys."""
    cache_layer(cache, 0)  # a cache that makes its layers one by one has it now
    place = next(i for i, layer in enumerate(cache.layers) if has_keys(layer))
    layer = cache.layers[place]
    plain = type(layer)
    if not isinstance(layer, _Gazing):
        if plain not in _KINDS:
            _KINDS[plain] = type(
                f"Gazing{plain.__name__}", (_Gazing, plain), {"_plain": plain, "_layer_type": None}
            )
        carrier: Any = _KINDS[plain].__new__(_KINDS[plain])
        carrier.__dict__ = layer.__dict__  # the same state under another class, as for pruned layers
        cache.layers[place] = layer = carrier
    layer.gaze = gaze


def gaze_of(cache: Any) -> Gaze | None:
    """The gaze of a cache, None without one."""
    first = next((layer for layer in getattr(cache, "layers", None) or () if has_keys(layer)), None)
    return getattr(first, "gaze", None)
