"""Two pictures of a bench: what each method saves on each model, and the kernels under their roofline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..viz.lines import COLOURS, GREY
from .result import BenchResult, KernelRow, ModelRow

PARTS = {
    "first": "first\ntoken",
    "prompt": "prompt",
    "token": "each\ntoken",
    "kv": "KV\ncache",
    "peak": "peak\nmemory",
}
NOISE = "unpatched again"


def write_plots(result: BenchResult, folder: Path, prefix: str = "") -> list[Path]:
    """`models.png` and `roofline.png`, each where there is something to draw; nothing without matplotlib."""
    written = []
    for name, figure in (
        ("models", models_figure(result.models)),
        ("roofline", roofline_figure(result.kernels, result.ceilings)),
    ):
        if figure is not None:
            written.append(folder / f"{prefix}{name}.png")
            figure.savefig(written[-1], dpi=150)
    return written


def models_figure(rows: Sequence[ModelRow]) -> Any:
    """Bars a method and model, shares of the unpatched model's; black lines: the ideal. None without matplotlib."""
    measured = [row for row in rows if row.ratios and row.method != NOISE]
    names = list(dict.fromkeys(row.model for row in measured))
    methods = list(dict.fromkeys((row.method, row.keep) for row in measured))
    columns = min(len(names), 3)
    made = _figure(6 * columns, 3.4 * math.ceil(len(names) / max(columns, 1)) + 0.5) if names else None
    if made is None:
        return None
    axes = made.subplots(math.ceil(len(names) / columns), columns, squeeze=False, sharey=True).flat
    width = 0.8 / len(methods)
    for axis, name in zip(axes, names):
        own = {(row.method, row.keep): row for row in measured if row.model == name}
        for place, key in enumerate(methods):
            if key not in own:
                continue
            row, left = own[key], [i - 0.4 + (place + 0.5) * width for i in range(len(PARTS))]
            axis.bar(left, _shares(row), 0.92 * width, color=COLOURS[place % len(COLOURS)], label=_label(key))
            for x, part in zip(left, PARTS):
                if part in row.ideal:
                    best = row.ideal[part].median
                    axis.plot([x - width / 2, x + width / 2], [best, best], color="black", linewidth=2)
        axis.axhline(1, color=GREY, linewidth=1)
        axis.set_xticks(range(len(PARTS)), list(PARTS.values()), fontsize=8)
        some = next(iter(own.values()))
        depth = f"{some.layers} of {some.of_layers} layers, {some.visual} + {some.text} tokens, {some.dtype}"
        axis.set_title(f"{name}\n{depth}", fontsize=9, loc="left")
        axis.grid(axis="y", alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(axes)[len(names) :]:
        axis.set_visible(False)
    first = made.axes[0]
    first.set_ylabel("share of the unpatched model's")
    first.plot([], [], color="black", linewidth=2, label="ideal")
    made.legend(
        *first.get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside lower center", ncols=6
    )
    return made


def roofline_figure(rows: Sequence[KernelRow], ceilings: dict[str, float]) -> Any:
    """FLOPs a second over FLOPs a byte, under the ceilings measured beside them. None without matplotlib.

    Kernels without matrix products are not in it: their share stands in the table.
    """
    drawn = [row for row in rows if row.flops]
    made = _figure(8.5, 5.5) if drawn else None
    if made is None:
        return None
    axes = made.subplots()
    low = min(row.flops / row.bytes for row in drawn) / 3
    high = 3 * max(
        *(row.flops / row.bytes for row in drawn), *(v / ceilings["bytes"] for v in ceilings.values())
    )
    for place, kind in enumerate(sorted(k for k in ceilings if k != "bytes")):
        top, ridge = ceilings[kind], ceilings[kind] / ceilings["bytes"]
        style = ("-", "--", ":")[place % 3]
        axes.plot([low, ridge, high], [low * ceilings["bytes"], top, top], style, color=GREY, linewidth=1.2)
        axes.annotate(f"{kind}, {top / 1e9:.0f} GFLOP/s", (high, top), xytext=(-2, 4), textcoords="offset points",
                      ha="right", fontsize=8, color=GREY)  # fmt: skip
    for place, row in enumerate(drawn):
        x, y = row.flops / row.bytes, row.flops / row.seconds
        label = f"{row.kernel}{'' if row.backend == 'torch' else ', ' + row.backend}: {row.share:.0%}"
        marker = ("o", "s", "D")[place // len(COLOURS) % 3] if row.backend == "torch" else "^"
        axes.plot(
            [x], [y], marker, color=COLOURS[place % len(COLOURS)], markersize=7, label=label, linestyle=""
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOPs a byte (arguments read once, answers written once)")
    axes.set_ylabel("FLOPs a second")
    title = f"memory: {ceilings['bytes'] / 1e9:.3g} GB/s; in the legend: share of the ceiling"
    axes.set_title(title, fontsize=9, loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    made.legend(fontsize=8, frameon=False, loc="outside right upper")
    return made


def _shares(row: ModelRow) -> list[float]:
    parts = {name: ratio.median for name, ratio in row.ratios.items()}
    parts["kv"] = row.kv_bytes / max(row.kv_bytes_unpruned, 1)
    parts["peak"] = row.peak_bytes / max(row.peak_bytes_unpruned, 1)
    return [parts[name] for name in PARTS]


def _label(key: tuple[str, float | None]) -> str:
    return key[0] if key[1] is None else f"{key[0]}, keep {key[1]:g}"


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure(figsize=(width, height), layout="constrained")
