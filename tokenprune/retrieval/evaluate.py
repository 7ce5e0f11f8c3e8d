"""`evaluate`: one tower, one suite, every number of tokens. Returns data, prints nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import InputError
from .config import load_tower
from .encode import ALL, Encoder, Features, check_count
from .matching import check_match, late_interaction
from .metrics import ranking_of, rerank, right_answers, score_rankings
from .suites import Suite, load_suite

SCHEMA = "tokenprune.retrieval/1"
Tick = Callable[[int, int, str], None]
RESAMPLES = 1000


def evaluate(
    tower: str | dict[str, Any] | nn.Module = "crater-vit",
    suite: str | Mapping[str, Any] | Suite = "craters",
    *,
    counts: Sequence[int | str] = (1, 4, 16, 64, ALL),
    seeds: Sequence[str] = ("attention", "attention_fps", "fps"),
    shortlists: Sequence[int] = (10, 100, 500),
    staged: Sequence[int | str] = (16, 64, ALL),
    match: str = "maxsim",
    batch: int = 32,
    threads: int | None = None,
    name: str = "",
    home: Path | None = None,
    tick: Tick | None = None,
) -> dict[str, Any]:
    """Rank a suite by single vectors, by K tokens (selected, and aggregated) and in two stages.

    counts: tokens of a picture, in the gallery and in the query. seeds: rules that choose them, each with and without
    aggregation. staged: counts that also put a shortlist of the single vector in order, with the first of `seeds`.
    The single vector of the shortlist is the best of them by mAP. Rows of K tokens also tell what comes of a query that
    keeps all its tokens against a gallery of K.
    """
    check_match(match)
    found = suite if isinstance(suite, Suite) else load_suite(suite, home)
    about: dict[str, Any] = {"name": type(tower).__name__, "version": None}
    if not isinstance(tower, nn.Module):
        tower, about = load_tower(tower, home)
    encoder = Encoder(tower, ALL, batch=batch)
    if not found.gallery or not found.queries:
        raise InputError(f"suite {found.name}: a gallery and queries are needed")
    steps = 2 + len(seeds) * 2 * len(counts)
    report = tick or (lambda done, total, what: None)
    started = time.perf_counter()
    with _threads(threads):
        report(0, steps, "reading the gallery")
        gallery = _read(encoder, found.gallery)
        report(1, steps, "reading the queries")
        queries = _read(encoder, found.queries)
        judge = _Judge(found)
        rows = [
            judge.row("single", name, ranking_of((queries.singles[name] @ gallery.singles[name].T).numpy()),
                      bytes=2 * gallery.singles[name].shape[1])
            for name in gallery.singles
        ]  # fmt: skip
        best = max(rows, key=lambda r: r["map"])["label"]
        first = ranking_of((queries.singles[best] @ gallery.singles[best].T).numpy())
        done = 2
        for rule in seeds:
            for aggregate in (False, True):
                for k in counts:
                    report(done, steps, f"{rule}, {k} tokens")
                    done += 1
                    count = check_count(k, gallery.patches.shape[1])
                    if count == gallery.patches.shape[1] and (aggregate or rule != seeds[0]):
                        continue  # all tokens are all tokens
                    stored = gallery.reduced(k, rule, aggregate)
                    asked = queries.reduced(k, rule, aggregate)
                    scores = late_interaction(asked, stored, match).numpy()
                    size = 2 * count * stored.shape[2]
                    kind = "aggregated" if aggregate else "selected"
                    whole = count == gallery.patches.shape[1]
                    if whole:
                        kind = "all"
                    row = judge.row(kind, rule, ranking_of(scores), k=count, bytes=size)
                    if not whole and rule == seeds[0]:
                        wide = late_interaction(queries.patches, stored, match).numpy()
                        row["map_query_all"] = judge.row("", "", ranking_of(wide))["map"]
                    rows.append(row)
                    if rule == seeds[0] and (aggregate or whole) and k in staged:
                        for n in shortlists:
                            ranking = rerank(first, scores, n)
                            two = judge.row(
                                "two-stage", rule, ranking, k=count, bytes=size + 2 * stored.shape[2]
                            )
                            rows.append({**two, "shortlist": n, "of_full": two["map"] / row["map"]})
        report(steps, steps, "done")
    return {
        "schema": SCHEMA,
        "name": name or found.name,
        "suite": {"name": found.name, **found.about, "gallery": len(found.gallery), "queries": len(found.queries)},
        "tower": {**about, "patches": gallery.patches.shape[1], "width": gallery.patches.shape[2],
                  "parameters": sum(p.numel() for p in tower.parameters())},
        "protocol": {"match": match, "first_stage": best, "seeds": list(seeds), "dtype": "float16",
                     "interval": f"95 %, {RESAMPLES} resamples of query craters"},
        "seconds": round(time.perf_counter() - started, 1),
        "rows": rows,
    }  # fmt: skip


def _read(encoder: Encoder, items: Sequence[Any]) -> Features:
    """Batch by batch: pictures are drawn or opened when their turn comes."""
    parts = []
    for start in range(0, len(items), encoder.batch):
        parts.append(encoder.features([item.load() for item in items[start : start + encoder.batch]]))
    return Features.join(parts)


class _Judge:
    """Rates rankings of one suite."""

    def __init__(self, suite: Suite) -> None:
        self.right = right_answers([q.relevant for q in suite.queries], [g.crater for g in suite.gallery])
        _, self.group = np.unique([q.crater for q in suite.queries], return_inverse=True)

    def row(self, kind: str, label: str, ranking: np.ndarray, **facts: Any) -> dict[str, Any]:
        found = score_rankings(ranking, self.right)
        low, high = self._interval(found.precisions)
        recall = {f"r{k}": round(v, 4) for k, v in found.recall.items()}
        return {
            "kind": kind,
            "label": label,
            **facts,
            "map": round(found.map, 4),
            "low": low,
            "high": high,
            **recall,
        }

    def _interval(self, each: np.ndarray) -> tuple[float, float]:
        """Percentile bootstrap over query craters: five pictures of one crater are not independent."""
        asked = ~np.isnan(each)
        total = np.bincount(self.group[asked], each[asked], self.group.max() + 1)
        count = np.bincount(self.group[asked], minlength=len(total))
        draws = np.random.default_rng(0).integers(0, len(total), (RESAMPLES, len(total)))
        means = total[draws].sum(1) / np.maximum(count[draws].sum(1), 1)
        low, high = np.quantile(means, (0.025, 0.975), method="nearest")
        return round(float(low), 4), round(float(high), 4)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
