"""`patch_tower` merges tokens inside a vision tower, in place and reversibly."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from ..errors import PatchError, TokenPruneError, UnknownNameError, neighbours
from ..hooks.attention import is_tapped
from .base import find_tower
from .merger import Merger
from .report import TowerReport
from .schedule import Schedule

METHODS = ("tome",)
_PATCHED: weakref.WeakKeyDictionary[
    nn.Module, weakref.ref[TowerHandle]
]  # its hooks keep a handle alive, not this


class TowerHandle:
    """A patch on one tower: a context manager, removable, with a report of the last forward."""

    def __init__(self, merger: Merger, method: str) -> None:
        self._merger = merger
        merger.handle = self
        self.method = method
        self._active = True

    @property
    def tower(self) -> nn.Module:
        """The module whose blocks merge; what was given, or what that wraps."""
        return self._merger.tower

    @property
    def active(self) -> bool:
        """The tower is still patched by this handle."""
        return self._active

    @property
    def report(self) -> TowerReport | None:
        """The last forward, or None before the first one."""
        return self._merger.report()

    def remove(self) -> None:
        """Restore the tower bit for bit. A second call does nothing."""
        if self._active:
            self._merger.remove()
            _PATCHED.pop(self.tower, None)
            self._active = False

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The unmerged tower inside a `with` block."""
        before, self._merger.enabled = self._merger.enabled, False
        try:
            yield
        finally:
            self._merger.enabled = before

    def __enter__(self) -> TowerHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"TowerHandle({type(self.tower).__name__}, {self.method}, {'active' if self._active else 'removed'})"


_PATCHED = weakref.WeakKeyDictionary()


def patch_tower(
    tower: nn.Module,
    method: str = "tome",
    *,
    r: int | Sequence[int] | None = None,
    keep: float | int | None = None,
    layers: Sequence[int | float] | None = None,
    proportional: bool = True,
    unmerge: bool = True,
) -> TowerHandle:
    """Merge tokens inside a vision tower between attention and MLP, so that the tower itself gets faster.

    "tome" is Bolya et al., 2022, arXiv:2210.09461 (ICLR 2023), written from the paper. In each block the patches, in
    raster order, go alternately into a (even places) and b (odd places); each a is linked to its most similar b by the
    cosine of this block's keys, mean over heads; the r strongest links merge, by means weighted with the number of
    patches in each. From then on attention adds log(size) to the logits of a group's key, as if all members were
    there. Class, register and distillation tokens take no part (in the paper the class token is among a, never
    merged). A merged token has the place of its b, so later blocks go on in raster order.

    Args:
        tower: a CLIP or SigLIP vision model of transformers, a timm `VisionTransformer`, the `visual` of an open_clip
            model; alone or inside a vision-language model (`model.model.vision_tower`).
        method: "tome".
        r: patches to merge in each block, at most half of those left; or a list with one number for each block.
        keep: instead of r: the patches left at the end, a share in (0, 1] or a count, merged away evenly. A picture
            of n patches has max(1, floor(keep n + 1/2)) left.
        layers: blocks that merge, from 0 on or as shares of the depth; all of them by default.
        proportional: add log(size). It needs an attention that takes a mask ("sdpa" or "eager" in transformers).
        unmerge: every block gives out as many tokens as before, members with the value of their group, and is
            shorter inside only. Shapes are those of the unpatched tower everywhere, as vision-language models need.
            False: merged tokens are given out, fewer from block to block, in raster order of `report.owner`; what the
            tower itself pools still counts every group by its size. The cost of True is copying rows.

    Returns:
        A handle: a context manager with `.remove()`, `.disabled()` and `.report` (tokens of each block, owner map,
        FLOPs with and without).

    Raises:
        UnsupportedModelError: no tower that is known, or a variant in which merging would be wrong.
        UnknownNameError, BudgetError: a name or number out of range; nothing was changed.
        PatchError: the tower is patched already, or `patch_model` watches its attention.
    """
    if method not in METHODS:
        raise UnknownNameError(
            f"no merging inside towers named {method!r}; {neighbours(str(method), METHODS)}. Methods that prune for "
            "the language model go to patch_model"
        )
    found, library = find_tower(tower)
    for name, value in (("proportional", proportional), ("unmerge", unmerge)):
        if not isinstance(value, bool):
            raise TokenPruneError(f"{name}={value!r}: True or False")
    if found in _PATCHED:
        raise PatchError(f"{_PATCHED[found]()!r} is on this tower already; remove() it first")
    library.check(found, proportional)
    schedule = Schedule.of(len(library.blocks(found)), r, keep, layers)
    patches = library.patches(found)
    if patches is not None:
        schedule.counts(patches)  # raises now what the first picture would raise
    if is_tapped(found):
        raise PatchError(
            "a method of patch_model reads the attention of this tower, one number for each patch, and merged tokens "
            "would answer for several; use a method that needs none of it, or remove that patch"
        )
    merger = Merger(found, library, schedule, proportional, unmerge)
    merger.install()
    handle = TowerHandle(merger, method)
    _PATCHED[found] = weakref.ref(handle)
    return handle


def merged_in(module: nn.Module | None) -> TowerHandle | None:
    """The patch on a tower in `module`, if there is one."""
    if module is None:
        return None
    return next((_PATCHED[m]() for m in module.modules() if m in _PATCHED), None)
