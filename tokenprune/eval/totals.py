"""Scores that only all answers together have, F1 or MME's sums: with intervals, and against the unpruned ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .benchmarks.registry import get_scorer
from .benchmarks.scoring import Scorer
from .bootstrap import bootstrap_all
from .journal import Record

RESAMPLES = 500
"""A statistic of all answers is computed anew for each."""
Texts = Sequence[dict[str, str]]
"""Sample id -> output, one for each draw of a row."""


def facts_of(sample: Record) -> Record:
    """What a scorer is told of a sample besides its answers."""
    return {**sample.get("facts", {}), **{key: sample.get(key) for key in ("id", "kind", "group")}}


def score_totals(metric: str, texts: Texts, base: Texts, samples: dict[str, Record]) -> dict[str, Any]:
    """Name -> value, low, high and, over the samples that both answered, `difference` from the unpruned one.

    texts, base: what the row and the unpruned model said; draws are averaged. Empty where the scorer has no totals.
    """
    scorer = get_scorer(metric)
    graded = [i for i, sample in samples.items() if sample["answers"]]
    ids = [i for i in graded if all(i in said for said in texts)]
    if scorer.totals is None or not ids or not texts:
        return {}
    groups = [samples[i]["group"] for i in ids]
    own = bootstrap_all(_of(scorer, texts, ids, samples), len(ids), groups, resamples=RESAMPLES)
    out: dict[str, Any] = {name: _plain(interval) for name, interval in own.items()}
    both = [i for i in ids if all(i in said for said in base)]
    if both and base and texts is not base:
        after, before = (_of(scorer, said, both, samples) for said in (texts, base))

        def gained(rows: np.ndarray) -> dict[str, float]:
            new, old = after(rows), before(rows)
            return {name: new[name] - old[name] for name in new if name in old}

        groups = [samples[i]["group"] for i in both]
        for name, interval in bootstrap_all(gained, len(both), groups, resamples=RESAMPLES).items():
            out.setdefault(name, {})["difference"] = _plain(interval)
    return out


def reported(row: dict[str, Any], metric: str, names: str = "") -> float | None:
    """What a paper's table has for a row: the benchmark's headline, or the sum of the totals named ("a + b"), in its
    own unit; else the score in points. None: there is none."""
    scorer = get_scorer(metric)
    found = row.get("totals", {}).get(metric, {})
    values = [found.get(name, {}).get("value") for name in (names or scorer.headline).split(" + ")]
    if all(value is not None for value in values):
        return scorer.scale * sum(values)
    return None if row.get("score") is None else 100 * row["score"]["value"]


def _of(
    scorer: Scorer, texts: Texts, ids: Sequence[str], samples: dict[str, Record]
) -> Callable[[np.ndarray], dict[str, float]]:
    """The totals of rows of `ids`, the mean over draws."""
    assert scorer.totals is not None
    answers = [samples[i]["answers"] for i in ids]
    facts = [facts_of(samples[i]) for i in ids]
    each = [scorer.totals([said[i] for i in ids], answers, facts) for said in texts]

    def of(rows: np.ndarray) -> dict[str, float]:
        found = [one(rows) for one in each]
        shared = [name for name in found[0] if all(name in one for one in found)]
        return {name: sum(one[name] for one in found) / len(found) for name in shared}

    return of


def _plain(interval: Any) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
