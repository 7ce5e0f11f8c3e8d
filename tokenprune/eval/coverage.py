"""How far what a method leaves is from what there was: a pass of its own over a few samples, before the language model.

For rows of one method of the input stage. With x_i the visual tokens as the language model would receive them and y_k
those it does receive, merged ones as merged, a token's distance is min_k 1 - cos(x_i, y_k).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from ..errors import TokenPruneError
from ..kernels import max_similarity, unit
from ..tokens import Selection, VisualTokens
from .answer import Answerer
from .efficiency import Asked, first_readable
from .journal import fingerprint, write_file
from .rows import Row
from .suite import Suite

FILE = "coverage.json"


def measure_coverage(
    folder: Path,
    answerer: Answerer,
    suite: Suite,
    rows: Sequence[Row],
    count: int,
    facts: Mapping[str, Any],
    tick: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write `coverage.json`: row key -> mean and worst distance, each the mean over `count` samples.

    A complete file of the same run and the same rows is left as it is.
    """
    rows = [row for row in rows if len(row.methods) == 1 and row.reducers()[0].stage == "input"]
    mark = fingerprint({**facts, "rows": [r.key for r in rows], "count": count})
    if (read_coverage(folder) or {}).get("fingerprint") == mark or not rows:
        return
    samples = first_readable(suite, count)
    seen: dict[str, list[tuple[float, float]]] = {row.key: [] for row in rows}
    for place, sample in enumerate(samples):
        if tick is not None:
            tick(place, len(samples), "coverage")
        with answerer.shared.held():
            for row in rows:
                with contextlib.suppress(TokenPruneError):
                    seen[row.key].append(_distances(answerer, row, sample))
    found = {
        key: {"mean": mean(a for a, _ in pairs), "worst": mean(b for _, b in pairs)}
        for key, pairs in seen.items()
        if len(pairs) == len(samples) > 0
    }
    body = {"fingerprint": mark, "samples": len(samples), "rows": found}
    write_file(folder / FILE, json.dumps(body, indent=1))


def read_coverage(folder: Path) -> dict[str, Any] | None:
    """What `measure_coverage` wrote, or None."""
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def distances(tokens: Tensor, kept: Tensor) -> Tensor:
    """(N, D) tokens, (K, D) what is left -> (N,) distance of each to the nearest, in float32."""
    return (1 - max_similarity(unit(tokens[None]), unit(kept[None]))[0]).clamp_min(0)


@torch.no_grad()
def _distances(answerer: Answerer, row: Row, sample: Asked) -> tuple[float, float]:
    """(mean, worst) over the tokens of one sample; nothing was chosen where all tokens stay."""
    found: list[Tensor] = []

    def watch(select: Callable[..., Selection]) -> Callable[..., Selection]:
        def run(tokens: VisualTokens, keep: int) -> Selection:
            answer = select(tokens, keep)
            left = tokens.features if answer.features is None else answer.features
            for s in range(tokens.features.shape[0]):
                found.append(distances(tokens.features[s], left[s][answer.keep[s]]))
            return answer

        return run

    with answerer.prepared(row, [sample[0]], [sample[1]]) as (inputs, handle):
        for method in handle.methods if handle is not None else ():
            object.__setattr__(method, "select", watch(method.select))  # this row's own instance
        answerer.chat.model(**inputs)
    if not found:
        return 0.0, 0.0
    every = torch.cat(found)
    return every.mean().item(), every.max().item()
