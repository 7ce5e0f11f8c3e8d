"""The entropy collapse layer: where a language model's view of the picture turns from many directions to few.

S_l is the matrix entropy over the visual tokens' query states of decoder layer l (Wang et al., 2026,
arXiv:2602.17196, equation 1), averaged over samples. The authors read the layer off a plot; our rule is
K = 1 + argmax over l < L / 3 of S_l - S_{l+1} (`kernels.entropy.collapse_layer`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from ..bench.machine import versions
from ..chat import Chat
from ..errors import InputError, MissingExtraError, TokenPruneError, UnsupportedModelError
from ..eval.suite import Suite
from ..hooks.attention import Taps
from ..hooks.parts import Parts, find_parts
from ..kernels.entropy import collapse_layer, token_entropy
from ..recipe import Recipe

SAMPLES = 32
STATES = ("queries", "keys")


@dataclass(frozen=True)
class Curve:
    """Entropies of the decoder layers in nats, (L,): mean over samples and its standard error."""

    model: str
    states: str
    mean: tuple[float, ...]
    stderr: tuple[float, ...]
    samples: int
    suite: str  # name and hash

    @property
    def layer(self) -> int:
        """The entropy collapse layer: pruning happens before it runs."""
        return collapse_layer(self.mean)

    def recipe(self, **hyper: Any) -> Recipe:
        """`entropyprune` at this layer, with the curve it was found on."""
        notes = {
            "rule": "layer = 1 + argmax over l < L / 3 of S_l - S_(l+1)",
            "states": self.states,
            "curve": [round(v, 4) for v in self.mean],
            "stderr": [round(v, 4) for v in self.stderr],
            "samples": self.samples,
            "suite": self.suite,
            "versions": {k: v for k, v in versions().items() if k in ("tokenprune", "torch", "transformers")},
        }
        return Recipe(self.model, [("entropyprune", {"layer": self.layer, **hyper})], notes)


@torch.no_grad()
def entropy_curve(
    chat: Chat,
    suite: Suite,
    samples: int = SAMPLES,
    states: str = "queries",
    *,
    tick: Callable[[int, int, str], None] | None = None,
) -> Curve:
    """Measure the curve on the first `samples` pictures of a suite that can be read, one unpruned forward each.

    states: "queries" or "keys", as the attention sees them (after norms and RoPE), heads side by side. Raises
    `UnsupportedModelError` when a layer has no attention that can be observed.
    """
    if states not in STATES:
        raise InputError(f"states={states!r}: {' or '.join(map(repr, STATES))}")
    parts, found = find_parts(chat.model), []
    seen: dict[str, int] = {}
    for sample in suite.samples:
        if len(found) == samples:
            break
        if sample.group in seen:
            continue
        try:
            inputs = chat.inputs(sample.picture.load(), sample.question)
        except (TokenPruneError, OSError):
            continue
        seen[sample.group] = 1
        found.append(_of_one(chat.model, parts, inputs, states))
        if tick is not None:
            tick(len(found), samples, sample.picture.name)
    if len(found) < 2:
        raise InputError(
            f"suite {suite.name}: {len(found)} pictures that can be read; a curve needs at least two"
        )
    layers = list(zip(*found))
    return Curve(
        chat.name,
        states,
        tuple(mean(v) for v in layers),
        tuple(stdev(v) / len(v) ** 0.5 for v in layers),
        len(found),
        f"{suite.name} {suite.hash()}",
    )


def _of_one(model: nn.Module, parts: Parts, inputs: dict[str, Any], states: str) -> list[float]:
    """S_l of every layer for one prompt."""
    ids = inputs["input_ids"][0]
    visual = torch.zeros_like(ids, dtype=torch.bool)
    for token in parts.placeholders.values():
        visual |= ids == token
    if int(visual.sum()) < 2:
        raise InputError("a curve needs at least two visual tokens")
    entropies: dict[int, float] = {}
    taps = Taps()
    try:
        for place, layer in enumerate(parts.layers):
            taps.add(list(layer.modules()), _watch(entropies, place, visual, states))
        model(**inputs)
    finally:
        taps.remove()
    missing = [k for k in range(parts.num_layers) if k not in entropies]
    if missing:
        raise UnsupportedModelError(
            f"layers {missing} of {type(model).__name__} have no attention that could be observed, so there is no curve"
        )
    return [entropies[k] for k in range(parts.num_layers)]


def _watch(entropies: dict[int, float], place: int, visual: Tensor, states: str) -> Callable[..., None]:
    def see(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, kwargs: dict[str, Any]
    ) -> None:
        of = query if states == "queries" else key
        tokens = of[0].transpose(0, 1)[visual.to(of.device)].flatten(1)  # (N, H d)
        entropies[place] = float(token_entropy(tokens))

    return see


def plot_curve(curve: Curve, path: Path) -> None:
    """The curve with its collapse layer marked, as a picture file."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", "eval") from error
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    layers = range(len(curve.mean))
    axes.errorbar(
        layers, curve.mean, yerr=[2 * e for e in curve.stderr], marker="o", color="#0072b2", markersize=4
    )
    axes.axvline(curve.layer - 0.5, color="#d55e00", linestyle="--", linewidth=1)
    axes.annotate(
        f"prune before layer {curve.layer}", (curve.layer - 0.5, 1), xycoords=("data", "axes fraction"),
        xytext=(4, -12), textcoords="offset points", color="#d55e00", fontsize=9,
    )  # fmt: skip
    axes.set_xlabel("decoder layer")
    axes.set_ylabel("entropy of visual " + curve.states + ", nats")
    axes.set_title(
        f"{curve.model}, {curve.samples} samples of {curve.suite.split()[0]}", fontsize=10, loc="left"
    )
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
