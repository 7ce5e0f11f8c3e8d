"""Decode steps of a decode-stage method: focal layers look at everything, the others only at what was chosen."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import BoolTensor, Tensor, nn

from ..errors import UnsupportedModelError
from ..kernels.decode import dense_step, partial_step, places, sparse_step
from ..tokens import FixationReport
from .attention import Taps
from .cache import FILLER, cache_layer
from .gaze import Gaze, attach, gaze_of
from .layout import Layout
from .parts import Parts
from .step import layer_index

TRAIL = 4096
"""Choices that are remembered for the report."""

WORTH_COPYING = 0.4
"""Largest share of the visual keys for which a focal layer copies its candidates out; the copy breaks even near half.

Above it everything is read in place, the rest masked: nothing is saved, and the report says so.
"""


class Attender(Protocol):
    """What the hooks ask of a decode-stage method; `Reducer` has it."""

    def attend(self, attention: Tensor, valid: BoolTensor, state: dict[str, Tensor]) -> BoolTensor: ...
    def candidates(self, valid: BoolTensor, state: dict[str, Tensor]) -> BoolTensor | None: ...
    def focal_layers(self, num_layers: int) -> tuple[int, ...]: ...
    def num_read(self, n: int) -> int: ...


class Fixations:
    """One decode-stage method on one model."""

    def __init__(self, parts: Parts, method: Attender, owner: Any) -> None:
        self.parts, self.method, self.owner = parts, method, owner
        self.focal = frozenset(method.focal_layers(parts.num_layers))
        self.first = int(getattr(method, "dense", 0))
        self._taps = Taps()
        self._cache: Any = None
        self._gaze: Gaze | None = None

    def install(self) -> None:
        """Tap every decoder layer."""
        for place, layer in enumerate(self.parts.layers):
            self._taps.add(list(layer.modules()), self._tap(place, layer_index(layer, place)))

    def remove(self) -> None:
        self._taps.remove()
        self._cache = self._gaze = None

    def begin(self, cache: Any, length: int) -> None:
        """A forward of `length` tokens starts: only a single one is a step."""
        gaze = gaze_of(cache) if length == 1 and cache is not None else None
        self._gaze = gaze if gaze is not None and gaze.owner is self.owner else None
        self._cache = cache if self._gaze is not None else None

    def end(self, finished: bool) -> None:
        """The forward is over. Raises when no focal layer could be looked at: the rest would be dense, unnoticed."""
        gaze, self._cache, self._gaze = self._gaze, None, None
        if gaze is None or not finished:
            return
        gaze.steps += 1
        if gaze.chosen is None and gaze.most:
            raise UnsupportedModelError(
                f"no attention of layers {sorted(self.focal)} of {type(self.parts.model).__name__} could be observed "
                "(a sliding window, or attention of its own kind); choose other focal layers"
            )

    def report(self, gaze: Gaze) -> FixationReport:
        """What was looked at so far."""
        layers, focal = self.parts.num_layers, len(self.focal)
        dense = len(self.focal | set(range(self.first)))
        spared = [] if gaze.spared is None else [s for s, n in zip(gaze.spared.tolist(), gaze.counts) if n]
        free = sum(k >= self.first for k in self.focal)
        looked = dense - free * sum(spared) / max(len(spared) * gaze.visits, 1)
        shares = [self.method.num_read(n) / n for n in gaze.counts if n]
        sparse = sum(shares) / len(shares) if shares else 1.0
        choices = []
        for step, layer, index in gaze.trail:
            flat = index.flatten(1) if index.dim() == 3 else index
            rows = [sorted({i for i in row if i >= 0}) for row in flat.tolist()]
            choices.append((step, layer, rows))
        read = (looked + (layers - dense) * sparse) / layers if focal else sparse
        return FixationReport(gaze.steps, sorted(self.focal), list(gaze.counts), choices, sparse, read)

    def after_prefill(self, cache: Any, layout: Layout, past: int) -> Gaze:
        """Remember where the images of a prefill lie; those of earlier turns stay."""
        before = gaze_of(cache)
        rows = [torch.empty(0, 5, dtype=torch.long)] * layout.batch  # (n, 5): place, part, t, y, x
        if before is not None and before.owner is self.owner and before.coords is not None:
            old = torch.cat([before.logical[..., None], before.coords], dim=-1).cpu()
            rows = [row[:count] for row, count in zip(old, before.counts)]
        for segment in layout.segments:
            row, coords = rows[segment.row], segment.shape.coords.clone()
            coords[:, 0] += int(row[:, 1].max()) + 1 if len(row) else 0
            more = torch.cat([segment.positions[:, None] + past, coords], dim=1)
            rows[segment.row] = torch.cat([row, more])
        counts = [len(r) for r in rows]
        table = torch.full((layout.batch, max(counts), 5), FILLER)
        for row, own in enumerate(rows):
            table[row, : len(own)] = own
        table = table.to(next(self.parts.layers[0].parameters()).device)
        gaze = Gaze(self.owner, table[..., 0], counts, past + layout.length, coords=table[..., 1:])
        attach(cache, gaze)
        return gaze

    # -- one layer of one step ---------------------------------------------------------------------------------

    def _tap(self, place: int, slot: int) -> Any:
        def attend(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, kwargs: dict[str, Any]
        ) -> tuple[Tensor, Tensor | None] | None:
            gaze = self._gaze
            if gaze is None or query.shape[2] != 1 or gaze.most == 0:
                return None
            layer = cache_layer(self._cache, slot)
            if getattr(layer, "is_sliding", False) or "s_aux" in kwargs:
                return None  # a window is small already; sinks are their kernel's own affair
            scaling = kwargs.get("scaling")
            scaling = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
            softcap = kwargs.get("softcap")
            with torch.no_grad():
                out = self.attend(
                    gaze, place, layer, query, key, value, _additive(mask, key), scaling, softcap
                )
            return None if out is None else (out.transpose(1, 2).contiguous(), None)

        return attend

    def attend(
        self, gaze: Gaze, place: int, layer: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
        scaling: float, softcap: float | None = None,
    ) -> Tensor | None:  # fmt: skip
        """(B, H, 1, d_v), attention of layer `place` in this step; None where the kernel's own dense one will do."""
        if place in self.focal:
            return self._look(gaze, place, layer, query, key, value, mask, scaling, softcap)
        if gaze.chosen is None or place < self.first:
            return None
        return self._glance(gaze, layer, query, key, value, mask, scaling, softcap)

    def _look(
        self, gaze: Gaze, place: int, layer: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any,
        scaling: float, softcap: float | None,
    ) -> Tensor:  # fmt: skip
        """A focal layer: everything, or what the method still thinks worth it, and a new choice."""
        visual = gaze.columns(layer).visual.to(key.device)
        valid: Any = visual >= 0
        state = gaze.state.setdefault(place, {})
        if not state:
            state["groups"] = query.new_zeros(key.shape[0], key.shape[1])
            if gaze.coords is not None:
                state["coords"] = gaze.coords.to(key.device)
        wanted = None if place < self.first else self.method.candidates(valid, state)
        # Waits for the device: how much is copied has to be known.
        most = 0 if wanted is None else int(wanted.sum(1).max())
        gaze.visits += place >= self.first
        if wanted is not None and most <= WORTH_COPYING * valid.shape[1]:
            spared = 1 - wanted.sum(1) / valid.sum(1).clamp(min=1)
            gaze.spared = spared if gaze.spared is None else gaze.spared + spared
            out, seen = self._peek(
                gaze, layer, query, key, value, mask, scaling, softcap, places(wanted, most)
            )
        else:
            if wanted is not None:
                mask = _without(mask, visual.masked_fill(wanted, FILLER), key.shape[2])
            out, weights = dense_step(query, key, value, scaling, mask, softcap)
            spots = visual.clamp(min=0)[:, None].expand(-1, weights.shape[1], -1)
            seen = weights.gather(2, spots).masked_fill(~valid[:, None], 0.0)
        gaze.chosen = self.method.attend(seen, valid, state)
        gaze.version += 1
        if len(gaze.trail) < TRAIL:
            gaze.trail.append((gaze.steps, place, gaze.picked(self.most(gaze)).to(torch.int32)))
        return out

    def _peek(
        self, gaze: Gaze, layer: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float,
        softcap: float | None, picked: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """A focal layer's output from the text and the (B, n) visual keys `picked`; the weights of all, (B, H, V)."""
        columns = gaze.columns(layer)
        rows, full = gaze.locate(columns, picked.to(columns.visual.device), key.shape[2], key.shape[1])
        narrow = _narrow(mask, full.to(key.device))
        out, weights = partial_step(query, key, value, rows.to(key.device), scaling, narrow, softcap)
        start = columns.rest.shape[1]
        there = weights[..., start : start + picked.shape[1]]  # exactly zero where a row has fewer
        spots = picked.clamp(min=0)[:, None].expand_as(there)
        return out, there.new_zeros(*there.shape[:2], gaze.most).scatter_add(2, spots, there)

    def _glance(
        self, gaze: Gaze, layer: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float,
        softcap: float | None,
    ) -> Tensor:  # fmt: skip
        """Any other layer: the text, and what was chosen last."""
        rows, columns, gaps = gaze.read(layer, key.shape[2], key.shape[1], self.most(gaze))
        narrow = _narrow(mask, columns) if gaps or mask is not None else None
        return sparse_step(query, key, value, rows.to(key.device), scaling, narrow, softcap)

    def most(self, gaze: Gaze) -> int:
        """Visual keys read by a sparse layer, in the row with most."""
        return self.method.num_read(max(gaze.counts))


def _additive(mask: Any, key: Tensor) -> Tensor | None:
    """(B or 1, 1, 1, S) of this step, additive; None where everything may be read."""
    if not isinstance(mask, Tensor):
        return None
    if mask.dim() == 2:  # padding, as FlashAttention takes it
        mask = mask[:, None, None, -key.shape[2] :].bool()
    mask = mask[:, :, -1:, : key.shape[2]]
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=torch.float32).masked_fill_(~mask, float("-inf"))
    return mask.float()


def _without(mask: Tensor | None, columns: Tensor, stored: int) -> Tensor:
    """The mask, or none, shut at these columns (B, n) as well; -1 is no column."""
    shut = torch.zeros(columns.shape[0], stored + 1, dtype=torch.bool, device=columns.device)
    shut = shut.scatter_(1, columns.masked_fill(columns < 0, stored), True)[:, None, None, :stored]
    return torch.where(shut, float("-inf"), torch.zeros((), device=columns.device) if mask is None else mask)


def _narrow(mask: Tensor | None, columns: Tensor) -> Tensor:
    """The mask (B or 1, 1, 1, S) over the columns that are read, (B, 1 or Hkv, 1, n); shut where a row has none."""
    spots = columns if columns.dim() == 3 else columns[:, None]
    if mask is None:
        out = torch.zeros(spots.shape, device=spots.device)
    else:
        out = mask[:, :, 0].expand(*spots.shape[:2], -1).gather(2, spots.clamp(min=0))
    return out.masked_fill(spots < 0, float("-inf")).unsqueeze(2)
