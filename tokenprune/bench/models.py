"""What a patch saves on a model of real size: to the first token, of it the prompt, each token after it, memory.

Every method is measured against the unpatched model in the order A B B A on one set of weights, greedy `generate`
calls of a few tokens. The *ideal* beside it is what cutting would give if choosing were free and the hooks took no
time: the tower on the whole picture, and the unpatched language model on a text prompt as short as what is left. There
is one for methods that cut before the language model; for others the share of FLOPs says what can be hoped for.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import TokenPruneError
from ..flops import LayerSize
from ..hooks.parts import Parts, find_parts
from ..patching import PatchHandle, patch_model
from .architectures import Architecture, build, cut
from .generation import Times, time_generation, timed, watched
from .memory import peak_bytes
from .pictures import prompt, text_prompt, visual
from .result import ModelRow
from .sizes import twin
from .timer import Ratio, abba, clock_for, quiet

Tick = Callable[[int, int, str], None]
METHODS = ("uniform", "flashvlm")
TEXT = 60
PARTS = ("first", "prompt", "token")


@torch.no_grad()
def measure(
    one: Architecture,
    quads: int,
    *,
    methods: Sequence[str] = METHODS,
    keep: float = 0.25,
    layers: int | None = None,
    tower_layers: int | None = None,
    side: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    device: str = "cpu",
    tick: Tick | None = None,
) -> list[ModelRow]:
    """2 `quads` pairs for each method and its ideal; the first row is the unpatched model against itself.

    A method that refuses the model gets a row that says why.
    """
    cut(one, layers, tower_layers)  # refused before anything is built
    tell = tick or (lambda *_: None)
    steps = len(methods) + 1
    tell(0, steps, f"{one.name}: building")
    plain = build(one, layers=layers, tower_layers=tower_layers, dtype=dtype, device=device)
    inputs = prompt(one, plain.config, side=side, text=TEXT, device=device, dtype=dtype)
    with quiet(1):
        bench = _Bench(one, plain, inputs, quads)
        rows = [bench.noise()]
        for done, name in enumerate(methods, 1):
            tell(done, steps, f"{one.name}: {name}")
            try:
                rows.append(bench.row(name, keep))
            except TokenPruneError as error:
                rows.append(bench.blank(name, keep, note=str(error)))
    tell(steps, steps, one.name)
    return rows


class _Bench:
    """One model with its prompt; the unpatched side is shared by all methods."""

    def __init__(self, one: Architecture, plain: Any, inputs: dict[str, Tensor], quads: int) -> None:
        self.one, self.plain, self.inputs, self.quads = one, plain, inputs, quads
        self.parts: Parts = find_parts(plain)
        self.clock, _ = clock_for(plain.device, 1)
        self.base = functools.partial(time_generation, plain, inputs, tower=self.parts.tower)
        self.visual = visual(inputs, plain.config)
        self.length = inputs["input_ids"].shape[1]
        self.peak = 0
        self.ideals: dict[int, tuple[dict[str, Ratio], list[Times]]] = {}

    def blank(self, method: str, keep: float | None, **found: Any) -> ModelRow:
        """A row with what is the same for all of them."""
        config = self.parts.text_config
        sizes = [LayerSize.of(config, k) for k in range(self.parts.num_layers)]
        stored = self.length * sum(s.stored for s in sizes) * (torch.finfo(self.plain.dtype).bits // 8)
        return ModelRow(
            self.one.name, method, keep, layers=self.parts.num_layers, of_layers=self.one.layers,
            tower_layers=len(self.parts.blocks or ()), visual=self.visual, text=self.length - self.visual,
            dtype=str(self.plain.dtype).removeprefix("torch."),
            flops_unpruned=sum(s.flops(self.length, self.length) for s in sizes), kv_bytes_unpruned=stored,
            peak_bytes_unpruned=self.peak, **found,
        )  # fmt: skip

    def noise(self) -> ModelRow:
        """The unpatched model against a twin of itself, and what it needs."""
        other = twin(self.plain)
        again = functools.partial(time_generation, other, self.inputs, tower=find_parts(other).tower)
        self.base()
        self.peak = peak_bytes(self.base, self.plain.device)
        ratios, times = self._ratios(again)
        row = self.blank("unpatched again", None, ratios=ratios, kept=self.visual)
        return replace(
            row, tower=_share(times, lambda t: t.vision), flops=row.flops_unpruned, kv_bytes=row.kv_bytes_unpruned,
            peak_bytes=self.peak,
        )  # fmt: skip

    def row(self, name: str, keep: float) -> ModelRow:
        patched = twin(self.plain)
        with patch_model(patched, name, keep=keep) as handle:
            tower, spent = find_parts(patched).tower, []
            for method in handle.methods:  # on the instance, which is this row's own
                object.__setattr__(method, "select", timed(method.select, self.clock, spent))
            run = functools.partial(time_generation, patched, self.inputs, tower=tower)
            run()
            peak = peak_bytes(run, self.plain.device)
            spent.clear()
            ratios, times = self._ratios(run)
            report = handle.report
            if report is None:
                raise TokenPruneError(f"bench {self.one.name}: {name} saw no picture")
            scoring = sum(spent) / len(times) / statistics.mean(t.prefill for t in times)
            row = self.blank(name, keep, ratios=ratios, kept=report.after)
            return replace(
                row, ideal=self._ideal(handle), tower=_share(times, lambda t: t.vision), scoring=scoring,
                equivalent=report.equivalent_tokens, flops=report.flops, kv_bytes=report.kv_bytes, peak_bytes=peak,
            )  # fmt: skip

    def _ideal(self, handle: PatchHandle) -> dict[str, Ratio]:
        """Of what is left by a cut before the language model; measured once for each length."""
        report = handle.report
        physical = set(report.physical) if report is not None else set()
        if len(physical) != 1 or any(m.stage != "input" for m in handle.methods):
            return {}
        (length,) = physical
        if length not in self.ideals:
            run = functools.partial(
                _ideal, self.plain, self.inputs, text_prompt(length, self.plain.device), self
            )
            run()
            self.ideals[length] = self._ratios(run)
        return self.ideals[length][0]

    def _ratios(self, run: Callable[[], Times]) -> tuple[dict[str, Ratio], list[Times]]:
        """{part: ratio to the unpatched model beside it}, the times themselves."""
        base, times = abba(self.base, run, self.quads)
        parts: dict[str, Callable[[Times], float]] = {
            "first": lambda t: t.prefill, "prompt": lambda t: t.prefill - t.vision, "token": lambda t: t.decode,
        }  # fmt: skip
        ratios = {name: Ratio.of([of(t) for t in times], [of(t) for t in base]) for name, of in parts.items()}
        return ratios, times


def _ideal(plain: Any, inputs: dict[str, Tensor], short: dict[str, Tensor], bench: _Bench) -> Times:
    """The picture through tower and projector, then the short prompt."""
    names = ("pixel_values", "image_sizes", "image_grid_thw")
    pixels = {name: inputs[name] for name in names if name in inputs}
    with watched(bench.parts.tower, bench.clock) as spent:
        start = bench.clock()
        plain.get_image_features(**pixels)
        seconds = bench.clock() - start
    times = time_generation(plain, short)
    return Times(times.prefill + seconds, times.decode, sum(spent), times.total + seconds)


def _share(times: Sequence[Times], of: Callable[[Times], float]) -> float:
    """Median share of the time to the first token."""
    return statistics.median(of(t) / max(t.prefill, 1e-9) for t in times)
