"""What a patch adds to a decode step at equal cache length.

The unpatched model has read a text prompt of the length that remains, the patched one the long prompt pruned to it:
both caches then hold the same number of keys in every layer. Steps are called as `generate` calls them: position ids
always, a mask only where there is padding. Both caches grow by the same steps, so they stay equally long.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import TokenPruneError
from ..patching import patch_model
from .result import Line, Verdict
from .sizes import FIRST_TEXT, Size, build, prompt, short_prompt, twin
from .timer import Ratio, quiet, rounds

Tick = Callable[[int, int, str], None]
METHOD = "uniform"
STEPS = 6  # decode steps of one measurement
PADDING = 20


class CountOps(TorchDispatchMode):
    """Counts the operations torch dispatches inside the block: a cost that no busy neighbour can change."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@dataclass
class Decoder:
    """A model in the middle of a generation: `step()` decodes one token for every row."""

    model: Any
    cache: Any
    mask: Tensor | None
    positions: Tensor  # (B, 1) of the last token

    @classmethod
    def after(cls, model: Any, inputs: dict[str, Tensor]) -> Decoder:
        """Prefilled with a prompt."""
        mask = inputs.get("attention_mask")
        batch, length = inputs["input_ids"].shape
        whole = torch.ones(batch, length, dtype=torch.long) if mask is None else mask
        positions = (whole.cumsum(-1) - 1).clamp(min=0)
        out = model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
        return cls(model, out.past_key_values, mask, positions[:, -1:])

    def step(self) -> None:
        batch = self.positions.shape[0]
        self.positions = self.positions + 1
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(batch, 1)], dim=1)
        self.model(
            input_ids=torch.full((batch, 1), FIRST_TEXT),
            position_ids=self.positions,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )

    def run(self) -> None:
        for _ in range(STEPS):
            self.step()

    def ops(self) -> int:
        """Dispatched operations of one step."""
        with CountOps() as counter:
            self.step()
        return counter.count

    def stored(self) -> list[int]:
        """Keys each layer's cache really holds."""
        return [layer.keys.shape[-2] for layer in self.cache.layers]


@torch.no_grad()
def measure(size: Size, count: int, *, tick: Tick | None = None) -> list[Line]:
    """Decode steps of batch 1, and of batch 2 with left padding; operations, then time over `count` rounds."""
    plain = build(size)
    lines: list[Line] = []
    goals = dict(size.goals)
    cases = (("batch 1", 1, 0), ("batch 2 padded", 2, PADDING))
    for place, (label, batch, padding) in enumerate(cases):
        patched, again = twin(plain), twin(plain)
        long, short = prompt(size, batch, padding), short_prompt(size, batch, padding)
        with quiet():
            first, second = Decoder.after(plain, short), Decoder.after(again, short)
            alone = first.ops()
            with patch_model(patched, METHOD, keep=size.keep):
                pruned = Decoder.after(patched, long)
                if pruned.stored() != second.stored():
                    raise TokenPruneError(
                        f"bench {size.name}: caches hold {pruned.stored()[0]} and {second.stored()[0]} keys"
                    )
                second.step()
                ops = pruned.ops()
                beside = first.ops()  # the patch on another model must not reach this one
                second.step()
                pruned.step()
                variants = {"unpatched": first.run, "unpatched again": second.run, "patched": pruned.run}
                times: dict[str, list[float]] = {name: [] for name in variants}
                for done, taken in enumerate(rounds(variants, count)):
                    for name, seconds in taken.items():
                        times[name].append(seconds / STEPS)
                    if tick is not None:
                        tick(place * count + done + 1, len(cases) * count, f"{size.name}, {label}")
        ratio = functools.partial(Ratio.of, base=times["unpatched"])
        lines += [
            Line(size.name, f"unpatched again, {label}", "unpatched", ratio(times["unpatched again"])),
            Line.judged(
                size.name, f"step, {label}", "unpatched", ratio(times["patched"]), goals, goal="step"
            ),
            Line(
                size.name,
                f"ops per step, {label}",
                "unpatched",
                verdict=Verdict.of_count(ops - alone, goals.get("ops")),
                goal=goals.get("ops"),
                ops=ops,
                base_ops=alone,
                note=""
                if beside == alone
                else f"{beside} ops unpatched beside a patched model, {alone} alone",
            ),
        ]
    return lines
