"""The focal layers of `fixation`: the few that look at all of the picture and choose for the others.

Searched greedily over nested sets (`greedy`) by what the decode steps of real answers lose (`replay`). Overlap of the
layers' choices does not find good sets (IndexCache, 2026, arXiv:2603.12201, appendix C), so the output decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..bench.machine import versions
from ..chat import Chat
from ..errors import BudgetError, InputError, MissingExtraError, TokenPruneError, UnsupportedModelError
from ..eval.procedural import BUILT_IN
from ..eval.sources import load_suite
from ..eval.suite import Sample, Suite
from ..hooks.parts import find_parts
from ..methods.fixation import Fixation
from ..recipe import Recipe
from .greedy import RERANK, Focal, Nested, greedy_addition, greedy_removal
from .replay import OBJECTIVES, Replay, record

SAMPLES, STEPS, BATCH = 12, 48, 4
ANSWERS = ("own", "reference")
SEARCHES = ("removal", "addition")
UNFAITHFUL = 0.05  # nats between dense steps and their replay; half precision stays far below


@dataclass(frozen=True)
class FocalSearch:
    """Nested focal layers and what the answers lose with each count of them, in nats a token."""

    model: str
    version: str | None  # of a zoo checkpoint
    method: Fixation  # with the hyper-parameters searched under; its `focal` says nothing
    objective: str  # "kl": KL(dense || sparse); "loss": negative log likelihood of the answers
    answers: str  # "own": the model's greedy ones; "reference": the suite's
    search: str  # "removal" or "addition"
    num_layers: int
    nested: Nested
    spread: dict[int, float]  # the same costs with as many layers spread evenly, fixation's default
    samples: int
    tokens: int  # of the answers, each one's first apart
    forwards: int  # decode steps run, of a batch each
    suite: str  # name and hash

    @property
    def keep(self) -> float | int:
        return self.method.keep

    @property
    def order(self) -> Focal:
        """The layers in order of removal."""
        return self.nested.order

    @property
    def curve(self) -> dict[int, float]:
        """Count of focal layers -> cost, most first."""
        return dict(sorted(self.nested.costs.items(), reverse=True))

    @property
    def evaluations(self) -> int:
        """Sets of layers judged, on the first batch alone or on all samples."""
        return self.nested.evaluations + self.nested.quick

    def layers(self, count: int) -> Focal:
        """The best `count` layers, ascending. Raises `BudgetError` for a count the search did not reach."""
        if count not in self.nested.sets:
            reached = ", ".join(map(str, sorted(self.nested.sets)))
            raise BudgetError(f"focal={count!r}: this search has sets of {reached} layers")
        return self.nested.sets[count]

    def to_recipe(self, count: int) -> Recipe:
        """`fixation` with the best `count` layers, and the curve they were found on."""
        hyper = {**self.method.hyper(), "focal": list(self.layers(count))}
        notes: dict[str, Any] = {
            "rule": f"greedy nested {self.search} of focal layers",
            "objective": self.objective,
            "answers": self.answers,
            "order": list(self.order),
            "curve": _rounded(self.curve),
            "spread": _rounded(self.spread),
            "samples": self.samples,
            "tokens": self.tokens,
            "evaluations": self.evaluations,
            "suite": self.suite,
            **({"checkpoint": self.version} if self.version else {}),
            "versions": {k: v for k, v in versions().items() if k in ("tokenprune", "torch", "transformers")},
        }
        return Recipe(self.model, [("fixation", hyper)], notes)


def calibration_suite(name: str, samples: int) -> Suite:
    """A suite by its name, file or folder; of the procedural ones never a sample of their test or held-out split."""
    if name in BUILT_IN:  # three times as many, as some pictures repeat
        return load_suite({"name": name, "split": "train", "n": 3 * samples})
    return load_suite(name)


def focal_search(
    chat: Chat,
    suite: Suite,
    samples: int = SAMPLES,
    *,
    keep: float | int = 0.05,
    k_min: int = 32,
    objective: str = "kl",
    answers: str | None = None,
    search: str = "removal",
    most: int | None = None,
    max_run: int | None = None,
    steps: int = STEPS,
    batch: int = BATCH,
    rerank: int = RERANK,
    tick: Callable[[int, int, str], None] | None = None,
    **hyper: Any,
) -> FocalSearch:
    """Search on the first `samples` pictures of a suite that can be read and whose answer has two tokens or more.

    keep, k_min, hyper: of `Fixation`, `focal` excepted. answers: "own" (default with "kl": needs no labels) are the
    model's greedy answers to these questions, "reference" (default with "loss") the suite's. At most `steps` decode
    steps a sample, `batch` samples at a time, longest answers first; a set of layers is judged on the first batch,
    and only the `rerank` best ones on all. most: the largest set of search="addition". max_run: removal only.
    Raises `InputError` for a suite with nothing to measure, `UnsupportedModelError` where `fixation` does not work.
    """
    for label, value, known in (("objective", objective, OBJECTIVES), ("search", search, SEARCHES)):
        _check(label, value, known)
    answers = answers or ("own" if objective == "kl" else "reference")
    _check("answers", answers, ANSWERS)
    for label, number in (("samples", samples), ("steps", steps), ("batch", batch)):
        if number < 1:
            raise InputError(f"{label}={number}: at least 1")
    if (search == "removal" and most is not None) or (search == "addition" and max_run is not None):
        raise InputError("`most` goes with search='addition', `max_run` with search='removal'")
    if "focal" in hyper:
        raise InputError("focal is what the search is for; leave it out")
    layers = find_parts(chat.model).num_layers
    method = Fixation(keep=keep, k_min=k_min, focal=layers, **hyper)
    found = _collect(chat, suite, samples, steps + 1, answers, tick)
    recordings = []
    for start in range(0, len(found), batch):
        part = found[start : start + batch]
        inputs = chat.inputs([image for image, _, _ in part], [question for _, question, _ in part])
        recordings.append(record(chat.model, inputs, [tokens for _, _, tokens in part]))
    with Replay(chat.model, recordings, method) as replay:
        distance = replay.cost(tuple(range(layers)))
        if not distance < UNFAITHFUL:
            raise UnsupportedModelError(
                f"decode steps of {type(chat.model).__name__} with all layers focal are {distance:.3g} nats off the "
                "dense ones they repeat, so nothing can be measured on them"
            )

        def cost(focal: Focal) -> float:
            return replay.cost(focal, objective)

        def quick(focal: Focal, bound: float) -> float:
            return replay.quick(focal, objective, bound)

        cheap = quick if len(recordings) > 1 else None
        options: dict[str, Any] = {"quick": cheap, "rerank": rerank, "tick": tick}
        if search == "removal":
            nested = greedy_removal(layers, cost, max_run=max_run, **options)
        else:
            nested = greedy_addition(layers, cost, most=most, **options)
        counts = sorted(nested.sets, reverse=True)
        spread = {m: cost(replace(method, focal=m).focal_layers(layers)) for m in counts}
        return FocalSearch(
            chat.name, chat.version, method, objective, answers, search, layers, nested, spread, len(found),
            sum(r.tokens for r in recordings), replay.forwards, f"{suite.name} {suite.hash()}",
        )  # fmt: skip


def _check(label: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{label}={value!r}: {' or '.join(map(repr, known))}")


def _rounded(costs: dict[int, float]) -> dict[int, float]:
    return {count: float(f"{cost:.4g}") for count, cost in costs.items()}


# -- the answers -----------------------------------------------------------------------------------------------


def _collect(
    chat: Chat, suite: Suite, samples: int, most: int, answers: str, tick: Any
) -> list[tuple[Image.Image, str, list[int]]]:
    """Pictures, questions and at most `most` tokens of their answers, longest first: batches of equal length."""
    found: list[tuple[Image.Image, str, list[int]]] = []
    for sample, image in _pictures(suite):
        try:
            inputs = chat.inputs(image, sample.question)
        except TokenPruneError:
            continue
        tokens = _own(chat, inputs, most) if answers == "own" else _reference(chat, sample, most)
        if len(tokens) < 2:
            continue
        found.append((image, sample.question, tokens))
        if tick is not None:
            tick(len(found), samples, sample.picture.name)
        if len(found) == samples:
            break
    if not found:
        raise InputError(
            f"suite {suite.name}: no picture that can be read with an answer of two tokens or more"
        )
    return sorted(found, key=lambda item: -len(item[2]))


def _pictures(suite: Suite) -> Iterator[tuple[Sample, Image.Image]]:
    """The first question about each picture that can be read."""
    seen: set[str] = set()
    for sample in suite.samples:
        if sample.group in seen:
            continue
        try:
            image = sample.picture.load()
        except (TokenPruneError, OSError):
            continue
        seen.add(sample.group)
        if isinstance(image, Image.Image):
            yield sample, image


def _stops(chat: Chat) -> list[int]:
    value = chat.model.generation_config.eos_token_id
    return (
        [] if value is None else [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
    )


@torch.no_grad()
def _own(chat: Chat, inputs: dict[str, Any], most: int) -> list[int]:
    """The model's greedy answer with its end token, if it comes to one."""
    stops = set(_stops(chat))
    out = chat.model.generate(**inputs, max_new_tokens=most, do_sample=False, num_beams=1)
    tokens = out[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens[: next((i + 1 for i, token in enumerate(tokens) if token in stops), len(tokens))]


def _reference(chat: Chat, sample: Sample, most: int) -> list[int]:
    """The suite's first answer with the model's end token."""
    if not sample.answers:
        raise InputError(f"{sample.id}: no right answer is known; answers='own' needs none")
    ids = chat.processor.tokenizer(sample.answers[0], add_special_tokens=False)["input_ids"]
    return [*ids, *_stops(chat)[:1]][:most]


# -- the picture -----------------------------------------------------------------------------------------------


def plot_search(found: FocalSearch, count: int, path: Path) -> None:
    """Cost against the count of focal layers, searched and spread, with the chosen count marked, as a picture file."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", "eval") from error
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    least = 1e-7 if found.objective == "kl" else 0.0  # with all layers focal only rounding is left
    for label, costs, colour in (
        ("searched", found.curve, "#0072b2"),
        ("spread evenly", found.spread, "#999999"),
    ):
        dots = sorted((m, v) for m, v in costs.items() if math.isfinite(v) and v > least)
        axes.plot(
            [m for m, _ in dots], [v for _, v in dots], marker="o", markersize=4, color=colour, label=label
        )
    layers = ", ".join(map(str, found.layers(count)))
    axes.axvline(count, color="#d55e00", linestyle="--", linewidth=1)
    axes.annotate(
        f"layers {layers}", (count, 1), xycoords=("data", "axes fraction"),
        xytext=(4, -12), textcoords="offset points", color="#d55e00", fontsize=9,
    )  # fmt: skip
    axes.set_xlabel(f"focal layers of {found.num_layers}")
    axes.set_ylabel(
        "KL to the dense model, nats a token" if found.objective == "kl" else "loss, nats a token"
    )
    axes.set_title(
        f"{found.model}, keep {found.keep:g}, {found.samples} samples of {found.suite.split()[0]}",
        fontsize=10, loc="left",
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if found.objective == "kl":
        axes.set_yscale("log")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
