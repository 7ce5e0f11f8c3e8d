"""Watch the vision tower: which features came out, which patches it attended to, without `output_attentions`.

`generate` encodes images before it calls `forward`, and beams repeat the result; so what was seen travels on the
tower's own output object and is picked up wherever that output is consumed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModelError
from ..kernels.attention import received_attention, row_attention
from .attention import Taps
from .chunks import Chunks
from .layout import Features
from .parts import Parts

_ATTRIBUTE = "_tokenprune_features"
TOWER_FIELDS = ("saliency", "vision_features", "vision_keys")


class VisionProbe:
    """Wraps `get_*_features` of one model and collects the tower fields that a method needs."""

    def __init__(self, parts: Parts, needs: frozenset[str]) -> None:
        self.parts = parts
        self.wanted = {need.split("@")[0]: need for need in needs if need.split("@")[0] in TOWER_FIELDS}
        self.forward: Mapping[str, Any] = {}  # arguments of the model's call under way
        self.last: dict[str, Features] = {}  # of raw-pixel calls inside this forward
        self.in_chunks = False  # this forward reads a part of the prompt
        self._chunks = Chunks(parts.family.features)
        self._patches: dict[str, list[Tensor]] = {}
        self._segments: list[int] | None = None
        self._encoding = False
        self._undo: list[Callable[[], None]] = []

    def install(self) -> None:
        """Hook what is needed and nothing else."""
        for modality in self.parts.placeholders:
            name = f"get_{modality}_features"
            if hasattr(self.parts.composite, name):
                self._wrap(name, modality)
        for name in self.wanted:
            if why := self.parts.withheld(name):
                raise _missing(self.parts, name, why)
        if "vision_features" in self.wanted:
            projector: Any = self.parts.projector
            self._undo.append(projector.register_forward_pre_hook(self._see_projector, with_kwargs=True).remove)
        if {"saliency", "vision_keys"} & set(self.wanted):
            self._tap_tower()

    def remove(self) -> None:
        """Undo `install`."""
        while self._undo:
            self._undo.pop()()

    def begin(self, call: Mapping[str, Any]) -> None:
        """A new forward with these arguments."""
        self.forward = call
        self.last.clear()
        self.in_chunks = False

    def end(self) -> None:
        """The forward is over."""
        self.forward = {}

    def features(self, modality: str, encoded: Any, ids: Tensor) -> Features | None:
        """What is known of the features about to be merged into the placeholders of (B, L) `ids`.

        `encoded`: those that were computed ahead, None where this forward computed them, or has none.
        """
        here = self.last.get(modality)
        if here is not None or encoded is None:
            if here is not None:
                self._chunks.forget(modality)
            return here
        return self._ahead(modality, encoded, ids)

    def _ahead(self, modality: str, output: Any, ids: Tensor) -> Features:
        pooled = self.parts.family.features(output)
        lengths = self.parts.family.lengths(self.parts.composite, modality, pooled)
        known = getattr(output, _ATTRIBUTE, None) or self._chunks.rebuilt(modality, output)
        if known is None:
            part = self._chunks.take(modality, output, len(ids), self.parts.family.joins)
            if part is not None:
                self.in_chunks = True
                return part
            if self.wanted:
                fields = ", ".join(self.wanted)
                raise UnsupportedModelError(
                    f"these image features come without {fields}: they were computed outside the patch. Give "
                    "generate() the pixels"
                )
            shapes = self.parts.family.fallback_shapes(lengths)
            return Features(modality, shapes)  # type: ignore[arg-type]
        self._chunks.forget(modality)
        times = sum(lengths) // max(sum(s.n for s in known.shapes), 1)
        if times <= 1:
            return known
        count = times * len(known.shapes)
        return known.repeated(count, (ids == self.parts.placeholders[modality]).sum(1).tolist())

    # -- get_image_features ------------------------------------------------------------------------------------

    def _wrap(self, name: str, method: str) -> None:
        composite = self.parts.composite
        original = getattr(composite, name)
        signature = inspect.signature(original)

        @functools.wraps(original)  # generate() reads the signature to choose its arguments
        def encode(*args: Any, **kwargs: Any) -> Any:
            if self._encoding:  # Qwen encodes a video by its own get_image_features
                return original(*args, **kwargs)
            bound = signature.bind_partial(*args, **kwargs).arguments
            call = {**bound, **bound.get("kwargs", {})}
            modality = self.parts.family.modality(method, call, self.forward)
            self._patches = {name: [] for name in self.wanted}
            self._segments = self.parts.family.segments(composite, call)
            self._encoding = True
            try:
                output = original(*args, **kwargs)
            finally:
                self._encoding = False
            features = self._collect(modality, call, output)
            self.last[modality] = features
            self._chunks.remember(modality, features, output)
            if not isinstance(output, (tuple, list, Tensor)):
                setattr(output, _ATTRIBUTE, features)
            return output

        instance = composite.__dict__  # may hold somebody else's wrapper already
        self._undo.append(functools.partial(_put_back, instance, name, instance.get(name)))
        instance[name] = encode

    def _collect(self, modality: str, call: dict[str, Any], output: Any) -> Features:
        family, composite = self.parts.family, self.parts.composite
        pooled = family.features(output)
        lengths = family.lengths(composite, modality, pooled)
        shapes = family.shapes(composite, modality, call, lengths)
        extras = {}
        for name, seen in self._patches.items():
            if not seen:
                raise _missing(self.parts, name, "its tower never called the attention interface")
            spread = family.spread(composite, modality, call, torch.cat(seen), shapes)
            extras[name] = [s[:, 0] for s in spread] if name == "saliency" else spread
        self._patches = {}
        return Features(modality, shapes, extras)  # type: ignore[arg-type]

    # -- the tower ---------------------------------------------------------------------------------------------

    def _see_projector(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if "vision_features" in self._patches:
            given = args[0] if args else next(iter(kwargs.values()))
            self._patches["vision_features"].append(self.parts.family.patch_features(given.detach()))

    def _tap_tower(self) -> None:
        need = self.wanted.get("saliency") or self.wanted["vision_keys"]
        depth = len(self.parts.blocks or ())
        if "@" in need:
            layer = int(need.split("@")[1]) % depth
        else:
            layer = self.parts.family.saliency_layer(self.parts.composite, depth)
        taps = Taps()
        taps.add(self.parts.block_taps(layer), self._see_attention)
        self._undo.append(taps.remove)

    def _see_attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, kwargs: dict[str, Any]
    ) -> None:
        if not self._patches:
            return
        query, key = query.detach(), key.detach()
        scaling = kwargs.get("scaling")
        if scaling is None:
            scaling = query.shape[-1] ** -0.5
        pieces = [(query, key)]
        if self._segments is not None and query.shape[0] == 1 and query.shape[2] == sum(self._segments):
            pieces = list(
                zip(query.split(self._segments, 2), key.split(self._segments, 2))
            )  # packed pictures
        elif self._segments is not None and query.shape[0] == len(self._segments):  # each filled up to the longest
            pieces = [(query[i : i + 1, :, :n], key[i : i + 1, :, :n]) for i, n in enumerate(self._segments)]
            mask = None
        cls = self.parts.family.class_token % query.shape[2] if self.parts.has_cls else None
        if "saliency" in self._patches:
            if cls is not None:
                rows = [row_attention(q[:, :, cls : cls + 1], k, scaling).mean(1) for q, k in pieces]
                seen = [_without(row, cls) for row in rows]
            else:
                seen = [
                    received_attention(q, k, scaling, mask if len(pieces) == 1 else None) for q, k in pieces
                ]
            self._patches["saliency"] += [_patches(s[..., None], self._segments) for s in seen]
        if "vision_keys" in self._patches:
            keys = [_without(k.mean(1), cls) for _, k in pieces]
            self._patches["vision_keys"] += [_patches(k, self._segments) for k in keys]


def _put_back(instance: dict[str, Any], name: str, before: Any) -> None:
    if before is None:
        instance.pop(name, None)
    else:
        instance[name] = before


def _without(values: Tensor, place: int | None) -> Tensor:
    """(pictures, P, ...) without the class token at `place`."""
    return values if place is None else torch.cat([values[:, :place], values[:, place + 1 :]], 1)


def _patches(values: Tensor, segments: list[int] | None) -> Tensor:
    """(pictures, P, C) where the tower batches pictures, (P, C) where it packs them."""
    return values if segments is None else values.flatten(0, 1)


def _missing(parts: Parts, name: str, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{type(parts.model).__name__} cannot serve {name}: {why}. Methods that need nothing of the tower: "
        "random, uniform, pool"
    )
