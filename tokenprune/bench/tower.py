"""What merging inside a vision tower saves: a CLIP tower of ViT-B/16's size, with and without.

The goal a formula could set is the share of FLOPs that is left, so it stands beside each measured share of time.
Everything merging itself takes, comparing keys and copying rows, is in the time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..errors import TokenPruneError
from ..towers import patch_tower
from .result import Line
from .sizes import Size, twin
from .timer import Ratio, quiet, rounds

PATCH = 16
VARIANTS: dict[str, dict[str, Any]] = {
    "tome, keep 0.5": {"keep": 0.5},
    "tome, keep 0.25": {"keep": 0.25},
    "tome, keep 0.25, merged outside": {"keep": 0.25, "unmerge": False},
    "tome, keep 0.25, no log(size)": {"keep": 0.25, "proportional": False},
}


def build(size: Size) -> nn.Module:
    """The unpatched tower with random weights, in evaluation mode on the CPU."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=PATCH * size.grid,
        patch_size=PATCH,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = CLIPVisionModel(config)
    return model.to(size.dtype).eval().requires_grad_(False)


@torch.no_grad()
def measure(size: Size, count: int, *, tick: Callable[[int, int, str], None] | None = None) -> list[Line]:
    """`count` rounds of every variant in an order drawn anew each round; one line a variant."""
    plain = build(size)
    side = PATCH * size.grid
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1)).to(size.dtype)
    towers = {"unpatched": plain, "unpatched again": twin(plain)} | {name: twin(plain) for name in VARIANTS}
    handles = {name: patch_tower(towers[name], **options) for name, options in VARIANTS.items()}
    variants = {name: functools.partial(_run, tower, pixels) for name, tower in towers.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    with quiet():
        for run in variants.values():  # once unmeasured
            run()
        for done, taken in enumerate(rounds(variants, count)):
            for name, seconds in taken.items():
                times[name].append(seconds)
            if tick is not None:
                tick(done + 1, count, size.name)
    lines = [
        Line(
            size.name, "unpatched again", "unpatched", Ratio.of(times["unpatched again"], times["unpatched"])
        )
    ]
    for name, handle in handles.items():
        report = handle.report
        if report is None or report.before != size.visual:
            raise TokenPruneError(
                f"bench {size.name}: {name} saw {report and report.before} of {size.visual} patches"
            )
        share = f"{name} ({report.flops / report.flops_unmerged:.2f} of the FLOPs)"
        lines.append(Line(size.name, share, "unpatched", Ratio.of(times[name], times["unpatched"])))
        handle.remove()
    return lines


def _run(tower: nn.Module, pixels: torch.Tensor) -> None:
    tower(pixels)
