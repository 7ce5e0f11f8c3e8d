"""What a patch adds to a prefill.

Two comparisons, each inside one run and on one set of weights:

*keep-all against unpatched*: the same prompt, the patched model told to keep everything. Measures the hooks alone.

*pruned against ideal*: the ideal is what pruning would cost if choosing were free and the hooks took no time: the
vision tower and projector on the whole picture (no method of the `input` stage can avoid them), and the unpatched
language model on a text prompt that is physically as short as what is left (`Size.text + Size.kept`). The ideal lacks
three things a pruned prefill cannot do without: embedding the long prompt, putting the image features into it and
rotary tables of the long prompt. They are counted against the patch; nothing is subtracted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from ..errors import TokenPruneError
from ..patching import patch_model
from .result import Line, Verdict
from .sizes import Size, build, prompt, short_prompt, twin
from .timer import Ratio, quiet, rounds

Tick = Callable[[int, int, str], None]
METHODS = ("uniform", "flashvlm")
OPTIONS = {"use_cache": True, "logits_to_keep": 1}  # as generate calls a prefill


@torch.no_grad()
def measure(size: Size, count: int, *, tick: Tick | None = None) -> list[Line]:
    """`count` rounds of every variant in an order drawn anew each round; one line a comparison."""
    plain = build(size)
    long, short = prompt(size), short_prompt(size)
    variants: dict[str, Callable[[], None]] = {
        "unpatched": functools.partial(_run, plain, long),
        "unpatched again": functools.partial(_run, twin(plain), long),
        "ideal": functools.partial(_ideal, twin(plain), long, short),
    }
    handles = {}
    for name, method, keep in (("keep-all", "uniform", 1.0), *((m, m, size.keep) for m in METHODS)):
        patched = twin(plain)
        handles[name] = patch_model(patched, method, keep=keep)
        variants[name] = functools.partial(_run, patched, long)
    times: dict[str, list[float]] = {name: [] for name in variants}
    with quiet():
        for run in variants.values():  # once unmeasured: allocations, lazily built tables
            run()
        _check(size, handles, short)
        for done, taken in enumerate(rounds(variants, count)):
            for name, seconds in taken.items():
                times[name].append(seconds)
            if tick is not None:
                tick(done + 1, count, size.name)
    for handle in handles.values():
        handle.remove()
    goals = dict(size.goals)
    lines = [
        Line(
            size.name, "unpatched again", "unpatched", Ratio.of(times["unpatched again"], times["unpatched"])
        ),
        Line.judged(
            size.name, "keep-all", "unpatched", Ratio.of(times["keep-all"], times["unpatched"]), goals
        ),
    ]
    for method in METHODS:
        lines.append(Line.judged(size.name, method, "ideal", Ratio.of(times[method], times["ideal"]), goals))
    for method in METHODS:  # what it is all for; no goal, it follows from the shapes
        lines.append(
            Line(size.name, method, "unpatched", Ratio.of(times[method], times["unpatched"]), Verdict.INFO)
        )
    return lines


def _run(model: Any, inputs: dict[str, Any]) -> None:
    model(**inputs, **OPTIONS)


def _ideal(model: Any, inputs: dict[str, Any], short: dict[str, Any]) -> None:
    model.get_image_features(pixel_values=inputs["pixel_values"])
    model(**short, **OPTIONS)


def _check(size: Size, handles: dict[str, Any], short: dict[str, Any]) -> None:
    """The pruned prefill must be exactly as long as the ideal one, or the ratio says nothing."""
    length = short["input_ids"].shape[1]
    for method in METHODS:
        report = handles[method].report
        if report is None or set(report.physical) != {length}:
            found = None if report is None else sorted(set(report.physical))
            raise TokenPruneError(
                f"bench {size.name}: {method} left {found} tokens where the ideal reads {length}"
            )
    report = handles["keep-all"].report
    if report is None or report.after != size.visual:
        raise TokenPruneError(
            f"bench {size.name}: keep-all kept {report and report.after} of {size.visual} tokens"
        )
