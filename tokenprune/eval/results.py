"""From a run's files to its figures: every row against the unpruned one, on the same samples."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ..errors import InputError
from .benchmarks.registry import get_scorer
from .coverage import read_coverage
from .efficiency import read_costs
from .journal import Record, read_records, read_samples, write_file
from .rows import NONE
from .statistics import (
    Interval,
    agreement,
    degenerate_rates,
    flips,
    holm,
    mcnemar,
    mean_interval,
    minimum_detectable_difference,
    non_inferior,
    paired_bootstrap,
    paired_ttest,
    ratio_bootstrap,
)
from .totals import facts_of, score_totals

SCHEMA = "tokenprune.eval/1"
FILE = "results.json"
KIND_RESAMPLES = 2_000
"""Of the intervals per kind and of further metrics; the overall ones have 10,000."""
CLOSED = 10
"""A kind of question with more right answers than this has no histogram of what was answered."""


@dataclass
class Results:
    """A run's figures as plain data (`body`), and where they lie."""

    folder: Path
    body: dict[str, Any]
    written: bool = True  # False: by another rank of the run

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.body["rows"]

    @property
    def failed(self) -> int:
        """Answers that could not be had, over all rows."""
        return sum(row["failed"] for row in self.rows)

    def row(self, label: str, keep: float | int | None = None) -> dict[str, Any]:
        """One row of the table; `InputError` when it was not asked."""
        for row in self.rows:
            if row["label"] == label and row["keep"] == keep:
                return row
        raise InputError(f"no row {label!r} at keep {keep!r} in {self.folder}")


def read_run(folder: Path) -> dict[str, Any]:
    """`run.json` of a run folder. Raises `InputError` when it is none."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: holds no readable run.json, so it is no folder of a run") from error


def read_results(folder: Path) -> Results:
    """What another rank has written."""
    return Results(folder, json.loads((folder / FILE).read_text(encoding="utf-8")), written=False)


@dataclass
class Scored:
    """Everything about one row's answers, by sample id. Seeds of one row are averaged sample by sample."""

    scores: dict[str, float]
    texts: list[dict[str, str]]  # one per seed
    records: list[Record]
    errors: dict[str, str]
    more: dict[str, dict[str, float]]  # further metric -> scores


def score_run(folder: str | Path, metric: str | None = None) -> Results:
    """Score the stored answers, without a model, and write `results.json`.

    metric: another one than the run's own. Samples that failed in a row are left out of it and counted; every row is
    compared with the unpruned answers to the samples that both have.
    """
    results = figures_of(folder, metric)
    write_file(results.folder / FILE, json.dumps(results.body, indent=1, allow_nan=False) + "\n")
    return results


def figures_of(folder: str | Path, metric: str | None = None) -> Results:
    """The same, without writing anything."""
    folder = Path(folder)
    run = read_run(folder)
    samples = {s["id"]: s for s in read_samples(folder)}
    records = read_records(folder)
    name = metric or run["suite"]["metric"]
    lines: dict[tuple[str, Any], list[dict[str, Any]]] = defaultdict(list)
    for row in run["rows"]:
        lines[row["label"], row["keep"]].append(row)
    also = [other for other in run["suite"].get("also", ()) if other != name]
    scored = {place: _scored(rows, samples, records, name, also) for place, rows in lines.items()}
    base = scored[NONE, None]
    if not base.texts or not base.texts[0]:
        reason = next(iter(base.errors.values()), "nothing was answered yet")
        raise InputError(f"{folder}: the unpruned model answered no sample: {reason}")
    rows = [_line(rows[0], len(rows), scored[place], base, samples, run, name) for place, rows in lines.items()]
    _adjust(rows)
    covered = (read_coverage(folder) or {"rows": {}})["rows"]
    for row, line in zip(rows, lines.values()):
        each = [covered[seed["key"]] for seed in line if seed["key"] in covered]
        row["coverage"] = {k: mean(c[k] for c in each) for k in ("mean", "worst")} if each else None
    published = run.get("published")
    values = {(p["label"], p["keep"]): p["value"] for p in (published or {"rows": []})["rows"]}
    for row in rows:
        row["published"] = values.get((row["label"], row["keep"]))
    costs = read_costs(folder)
    body = {
        "schema": SCHEMA,
        **{k: run[k] for k in ("name", "suite", "model", "protocol", "versions", "machine")},
        "published": None if published is None else {k: published[k] for k in ("source", "model", "total")},
        "rows": rows,
        "efficiency": None if costs is None else {k: v for k, v in costs.items() if k != "fingerprint"},
        "failures": _failures(scored),
    }
    body["suite"] = {**body["suite"], "metric": name}
    return Results(folder, body)


def _scored(
    rows: Sequence[dict[str, Any]],
    samples: dict[str, Any],
    records: dict[tuple[str, str], Record],
    metric: str,
    also: Sequence[str] = (),
) -> Scored:
    out = Scored({}, [], [], {}, {})
    each: dict[str, list[dict[str, float]]] = {name: [] for name in (metric, *also)}
    for row in rows:
        texts: dict[str, str] = {}
        for found in each.values():
            found.append({})
        for sample_id, sample in samples.items():
            record = records.get((row["key"], sample_id))
            if record is None:
                continue
            if "error" in record:
                out.errors[sample_id] = record["error"]
                continue
            out.records.append(record)
            texts[sample_id] = record["text"]
            if sample["answers"]:
                for name, found in each.items():
                    found[-1][sample_id] = score_of(name, record["text"], sample)
        out.texts.append(texts)
    out.scores, *more = (_mean_of_seeds(found, samples) for found in each.values())
    out.more = dict(zip(also, more))
    return out


def _mean_of_seeds(each: Sequence[dict[str, float]], samples: dict[str, Any]) -> dict[str, float]:
    common = set.intersection(*(set(s) for s in each)) if each else set()
    return {i: mean(s[i] for s in each) for i in samples if i in common}


def score_of(metric: str, text: str, sample: dict[str, Any]) -> float:
    """One answer's score under a metric, or a benchmark's scorer, by name."""
    return float(get_scorer(metric).each(text, sample["answers"], facts_of(sample)))


def _line(
    row: dict[str, Any],
    seeds: int,
    found: Scored,
    base: Scored,
    samples: dict[str, Any],
    run: dict[str, Any],
    metric: str,
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "label": row["label"], "keep": row["keep"], "methods": row["methods"], "seeds": seeds,
        "baseline": row["baseline"], "state": row["state"], "reason": row["reason"], "floor": row["floor"],
        "answered": len(found.records), "failed": len(found.errors),
    }  # fmt: skip
    if not found.records:
        return out
    whole = {
        r["id"]: r["before"] for r in base.records
    }  # `resize` and `blind` never see all of a picture's tokens
    out["tokens"] = {
        "before": mean(whole.get(r["id"], r["before"]) for r in found.records),
        "after": mean(r["after"] for r in found.records),
        "equivalent": mean(r["equivalent"] for r in found.records),
        "kept": mean(r.get("kept", r["equivalent"]) for r in found.records),
    }
    shares = [r["sparse"] for r in found.records if r.get("sparse") is not None]
    out["sparse"] = mean(shares) if shares else None
    out["generated"] = mean(r["generated"] for r in found.records)
    texts = [r["text"] for r in found.records]
    out["degenerate"] = degenerate_rates(texts, [r["unfinished"] for r in found.records])
    both = [(t, base.texts[0], sorted(t.keys() & base.texts[0].keys())) for t in found.texts]
    shares = [agreement([t[i] for i in ids], [b[i] for i in ids]) for t, b, ids in both if ids]
    out["agreement"] = mean(shares) if shares else None
    ids = [i for i in samples if i in found.scores]
    if ids:
        groups = [samples[i]["group"] for i in ids]
        out["score"] = _interval(mean_interval([found.scores[i] for i in ids], groups))
        out["kinds"] = _kinds(ids, found.scores, samples)
        out["metrics"] = {
            name: {
                "score": _interval(_mean(scores, ids, samples)),
                "differs": mean(float(scores[i] != found.scores[i]) for i in ids),
                "kinds": _kinds(ids, scores, samples),
            }
            for name, scores in found.more.items()
        }
        out["answers"] = _answers(ids, found.texts, samples)
        together = {
            name: totals
            for name in (metric, *found.more)
            if (totals := score_totals(name, found.texts, base.texts, samples))
        }
        if together:
            out["totals"] = together
    paired = [i for i in ids if i in base.scores]
    if paired and row["label"] != NONE:
        out.update(_against(paired, found, base, samples, run["protocol"]["margin"], seeds))
    return out


def _against(
    ids: Sequence[str], found: Scored, base: Scored, samples: dict[str, Any], margin: float, seeds: int
) -> dict[str, Any]:
    """The paired part: differences from the unpruned answers to the same samples."""
    a, b = [base.scores[i] for i in ids], [found.scores[i] for i in ids]
    groups = [samples[i]["group"] for i in ids]
    difference = paired_bootstrap(a, b, groups)
    out: dict[str, Any] = {"difference": _interval(difference), "verdict": non_inferior(difference, margin)}
    out["retained"] = _interval(ratio_bootstrap(a, b, groups)) if any(a) else None
    changed = flips(a, b)
    out["lost"], out["gained"] = changed.lost, changed.gained
    binary = {*a, *b} <= {0.0, 1.0}
    out["test"] = "McNemar, exact" if binary else "paired t"
    out["p"] = mcnemar(a, b).p if binary else paired_ttest(a, b).p if len(ids) > 1 else None
    share = (changed.lost + changed.gained) / len(ids)
    least = minimum_detectable_difference(len(ids), share)
    out["detectable"] = least if least < 1 else None
    return out


def _kinds(ids: Sequence[str], scores: dict[str, float], samples: dict[str, Any]) -> dict[str, Any]:
    by_kind: dict[str, list[str]] = defaultdict(list)
    for i in ids:
        if samples[i]["kind"]:
            by_kind[samples[i]["kind"]].append(i)
    return {
        kind: {**_interval(_mean(scores, those, samples)), "n": len(those)}
        for kind, those in sorted(by_kind.items())
    }


def _mean(scores: dict[str, float], ids: Sequence[str], samples: dict[str, Any]) -> Interval:
    groups = [samples[i]["group"] for i in ids]
    return mean_interval([scores[i] for i in ids], groups, resamples=KIND_RESAMPLES)


def _answers(
    ids: Sequence[str], texts: Sequence[dict[str, str]], samples: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Kind -> answer -> share of the kind's answers, for kinds with few right ones, most frequent first."""
    said: dict[str, Counter[str]] = defaultdict(Counter)
    right: dict[str, set[str]] = defaultdict(set)
    for i in ids:
        kind = samples[i]["kind"]
        if kind:
            right[kind].add(samples[i]["answers"][0])
            said[kind].update(found[i] for found in texts if i in found)
    return {
        kind: {text: count / said[kind].total() for text, count in said[kind].most_common(CLOSED)}
        for kind in sorted(said)
        if len(right[kind]) <= CLOSED
    }


def _adjust(rows: list[dict[str, Any]]) -> None:
    """Holm's correction over all rows that were tested."""
    tested = [row for row in rows if row.get("p") is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested])):
        row["p_holm"] = p


def _interval(interval: Interval) -> dict[str, float | None]:
    """Plain data; an unbounded end is null."""
    ends = {k: getattr(interval, k) for k in ("value", "low", "high")}
    return {k: v if v not in (float("inf"), float("-inf")) else None for k, v in ends.items()}


def _failures(scored: dict[tuple[str, Any], Scored]) -> list[dict[str, Any]]:
    """Each reason once, with the samples it hit and in how many rows."""
    hit: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for found in scored.values():
        for sample_id, message in found.errors.items():
            hit[message][sample_id] += 1
    return [
        {"reason": message, "samples": sorted(ids), "rows": max(ids.values())} for message, ids in hit.items()
    ]
