"""The hooks of one patched tower. Each block is logical outside and physical inside.

A block is `y = x + attention(norm(x))` and then `y + mlp(norm(y))`. Tokens merge at y: the hook before the MLP's branch
hands merged tokens in, the one behind it spreads the answer over y's length so that the block's own sum fits, and the
hook on the block puts the merged sum in that one's place. Nobody's forward is copied. With `unmerge` a block gives out
as many tokens as the tower has, each member with the value of its group, and the next one takes one of each again: so
feature layers, recorded hidden states and pooling over tokens see the length they know, and groups by their size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PatchError
from .base import Library, Undo, submodule
from .groups import Groups, Merge, merge
from .report import BlockSize, TowerReport
from .schedule import Schedule


class Call:
    """One forward through the blocks."""

    def __init__(self, x: Tensor, prefix: int, counts: tuple[int, ...]) -> None:
        self.prefix, self.counts = prefix, counts
        self.groups = Groups.alone(x.shape[0], x.shape[1], x.device)
        self.merged = False  # any two tokens, so far
        self.ran: list[int] = []  # patches after each block
        self.keys: Tensor | None = None
        self.step: Merge | None = None  # of the block that runs
        self.entered: Tensor | None = None  # its merged tokens before the MLP
        self.added: Tensor | None = None  # the MLP's answer to them

    @property
    def before(self) -> int:
        return self.groups.label.shape[1] - self.prefix

    def goal(self, index: int) -> int:
        """Tokens that block `index` merges away."""
        return (self.counts[index - 1] if index else self.before) - self.counts[index]


class Merger:
    """Merging in one tower."""

    def __init__(
        self, tower: nn.Module, library: Library, schedule: Schedule, proportional: bool, unmerge: bool
    ) -> None:
        self.tower, self.library, self.schedule = tower, library, schedule
        self.proportional, self.unmerge = proportional, unmerge
        self.enabled = True
        self.handle: Any = None  # lives as long as the hooks, also where the caller dropped it
        self.blocks = library.blocks(tower)
        self.prefix = library.prefix(tower)
        self.call: Call | None = None  # while the blocks run
        self.last: Call | None = None
        self._roles = [
            [submodule(b, path) for path in (library.attention, library.into_mlp, library.out_of_mlp)]
            for b in self.blocks
        ]
        self._sizes = [
            BlockSize.of(b, attention, library.extra_columns(attention))
            for b, (attention, _, _) in zip(self.blocks, self._roles)
        ]
        self._undo: list[Undo] = []
        self._warned = False

    def install(self) -> None:
        """Hook every block, or none."""
        try:
            self._install()
        except BaseException:
            self.remove()
            raise

    def _install(self) -> None:
        """Hooks on outputs go first, so that whoever records outputs sees the tokens of outside."""
        for index, (block, (attention, into, out_of)) in enumerate(zip(self.blocks, self._roles)):
            handles = [
                block.register_forward_pre_hook(self._enter(index), with_kwargs=True),
                attention.register_forward_pre_hook(self._attend(), with_kwargs=True),
                into.register_forward_pre_hook(self._merge(index)),
                out_of.register_forward_hook(self._spread(), prepend=True),
                block.register_forward_hook(self._leave(index), prepend=True),
            ]
            self._undo += [h.remove for h in handles]
            self._undo.append(self.library.watch(attention, self._see(index)))
        if not self.unmerge:
            self._undo += self.library.pool(self.tower, self._whole)

    def remove(self) -> None:
        """Undo `install`."""
        while self._undo:
            self._undo.pop()()
        self.call = None

    def report(self) -> TowerReport | None:
        """Of the last forward."""
        if self.last is None:
            return None
        groups, prefix, before, ran = self.last.groups, self.prefix, self.last.before, self.last.ran
        pictures = groups.label.shape[0]
        owner: Any = groups.slot.gather(1, groups.label)[:, prefix:] - prefix
        sizes = self._sizes[: len(ran)]
        return TowerReport(
            pictures=pictures,
            prefix=prefix,
            before=before,
            per_block=list(ran),
            owner=owner,
            size=groups.size[:, prefix:].long(),
            flops=pictures * sum(s.flops(prefix, n, m) for s, n, m in zip(sizes, [before, *ran], ran)),
            flops_unmerged=pictures * sum(s.flops(prefix, before, before) for s in sizes),
        )

    # -- a block, in the order in which its hooks run ------------------------------------------------------------

    def _enter(self, index: int) -> Callable[..., Any]:
        def before(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if block is not self.blocks[index]:  # its hooks came along, but they are the original's
                raise PatchError(
                    "this tower is a copy of a patched one; copy it unpatched and patch the copy itself"
                )
            if index == 0:
                self._begin(args[0] if args else kwargs["hidden_states"])
            call = self.call
            if call is None or not (call.merged and self.unmerge):
                return None
            if args:
                return (call.groups.shorten(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": call.groups.shorten(kwargs["hidden_states"])}

        return before

    def _begin(self, x: Tensor) -> None:
        self.call = None
        if not self.enabled:
            return
        # inside a reentrant checkpoint the forward pass runs without gradients too, so being in training counts
        trains = torch.is_grad_enabled() or self.tower.training
        if trains and self.library.checkpoints(self.tower):
            raise PatchError(
                "gradient checkpointing runs the blocks of a patched tower twice, and tokens would be merged twice; "
                "switch it off for the tower"
            )
        n = x.shape[1] - self.prefix
        keep = self.schedule.keep
        if isinstance(keep, int) and keep > n and not self._warned:
            self._warned = True
            warnings.warn(f"keep={keep}, but a picture has {n} patches: all of them stay", stacklevel=3)
        self.call = Call(x, self.prefix, self.schedule.counts(n))

    def _attend(self) -> Callable[..., Any]:
        def before(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            call = self.call
            if call is None or call.counts[-1] == call.before:
                return None
            given = [n for n in self.library.masks if kwargs.get(n) is not None and kwargs[n] is not False]
            if given:
                raise PatchError(
                    f"{', '.join(given)} speaks of single tokens, and a patched tower merges them; leave it out, or "
                    "use handle.disabled()"
                )
            if not (call.merged and self.proportional):
                return None
            x = args[0] if args else kwargs["hidden_states"]
            return args, self.library.biased(attention, kwargs, call.groups.size.log().to(x.dtype))

        return before

    def _see(self, index: int) -> Callable[[Callable[[], Tensor]], None]:
        def see(keys: Callable[[], Tensor]) -> None:
            if self.call is not None and self.call.goal(index):
                with torch.no_grad():
                    self.call.keys = keys()

        return see

    def _merge(self, index: int) -> Callable[..., Any]:
        def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
            call = self.call
            if call is None or not call.goal(index):
                return None
            if call.keys is None:
                raise PatchError(
                    f"block {index} of the tower showed no keys; its attention is not its own class's"
                )
            call.step = merge(call.groups, call.keys, self.prefix, call.goal(index))
            call.entered = call.step.means(args[0])
            return (call.entered, *args[1:])

        return before

    def _spread(self) -> Callable[..., Any]:
        def after(module: nn.Module, args: Any, output: Tensor) -> Any:
            call = self.call
            if call is None or call.step is None:
                return None
            call.added = output
            return call.step.spread(output)

        return after

    def _leave(self, index: int) -> Callable[..., Any]:
        def after(block: nn.Module, args: Any, output: Tensor) -> Any:
            call = self.call
            if call is None:
                return None
            if call.step is not None and call.entered is not None and call.added is not None:
                output = call.entered + call.added
                call.groups, call.merged = call.step.after, True
            call.keys = call.step = call.entered = call.added = None  # activations are not kept
            call.ran.append(call.counts[index])
            self.last = call
            if index == len(self.blocks) - 1:
                self.call = None
            if not call.merged:
                return None
            return call.groups.lengthen(output) if self.unmerge else output

        return after

    def _whole(self, x: Tensor) -> Tensor:
        """What pooling reads, where the tower gives out merged tokens."""
        last = self.last
        if not self.enabled or last is None or not last.merged or x.shape[:2] != last.groups.slot.shape:
            return x
        return last.groups.lengthen(x)
