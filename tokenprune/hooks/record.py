"""What a prefill leaves behind for the report; turned into numbers on the host only when somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..flops import LayerSize
from ..tokens import FixationReport, ImageReport, PruneReport
from .cuts import Fate, segments_of
from .layout import Features
from .parts import Parts
from .step import Step


@dataclass(eq=False)
class Prefill:
    """One pruned (or kept-whole) prefill."""

    fates: list[Fate]
    logical: int
    batch: int
    physical: list[int]
    past: int
    config: Any  # of the text model
    kv_bytes: int
    kv_bytes_unpruned: int
    looks: Callable[[], FixationReport] | None = None  # of a decode-stage method

    @classmethod
    def of(cls, parts: Parts, step: Step, fates: list[Fate], cache: Any) -> Prefill:
        """Taken at the end of the forward; reads sizes only, no tensor."""
        physical, current = [], step.length
        for k in range(parts.num_layers):
            current = step.lengths.get(k, current)
            physical.append(current)
        stored, full = _kv_bytes(cache)
        past = 0
        if cache is not None:
            past = max(int(cache.get_seq_length()) - step.length, 0)
        for fate in fates:  # the report needs places and masks; let go of features and scratch
            fate.memo.clear()
            for segment in fate.group.segments:
                segment.features = Features(segment.kind, [segment.shape])
        return cls(fates, step.length, step.batch, physical, past, parts.text_config, stored, full)

    def report(self) -> PruneReport:
        """The public form."""
        layers = len(self.physical)
        images = [self._image(segment, fate, i, layers) for segment, fate, i in segments_of(self.fates)]
        sizes = [LayerSize.of(self.config, k) for k in range(layers)]
        whole = sum(s.flops(self.logical, self.logical + self.past) for s in sizes)
        mean = sum(sum(i.per_layer) / layers for i in images) / len(images) if images else 0.0
        return PruneReport(
            images=images,
            logical=self.logical,
            physical=self.physical,
            equivalent_tokens=mean,
            flops=self.batch * sum(s.flops(p, p + self.past) for s, p in zip(sizes, self.physical)),
            flops_unpruned=self.batch * whole,
            kv_bytes=self.kv_bytes,
            kv_bytes_unpruned=self.kv_bytes_unpruned,
            fixation=None if self.looks is None else self.looks(),
        )

    @staticmethod
    def _image(segment: Any, fate: Fate, i: int, layers: int) -> ImageReport:
        n = segment.shape.n
        kept = list(range(n)) if fate.keep is None else fate.keep[i].nonzero()[:, 0].tolist()
        per_layer, alive, history = [], n, {k: counts[i] for k, counts in fate.history}
        for k in range(layers):
            alive = history.get(k, alive)
            per_layer.append(alive)
        return ImageReport(
            row=segment.row,
            ordinal=segment.ordinal,
            kind=segment.kind,
            grid=segment.shape.grid,
            before=n,
            after=len(kept),
            kept=kept,
            coords=segment.shape.coords,
            scores=None if fate.scores is None else fate.scores[i].cpu(),
            owner=None if fate.owner is None else fate.owner[i].cpu(),
            per_layer=per_layer,
        )


def _kv_bytes(cache: Any) -> tuple[int, int]:
    """Bytes the cache's tensors hold, and what they would hold unpruned."""
    stored = full = 0
    for layer in getattr(cache, "layers", ()):
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None or keys.numel() == 0:
            continue
        size = keys.numel() * keys.element_size() + values.numel() * values.element_size()
        length = int(layer.get_seq_length())
        window = getattr(layer, "sliding_window", None)
        if window is not None:
            length = min(length, window - 1)
        stored += size
        full += size // keys.shape[-2] * length
    return stored, full
