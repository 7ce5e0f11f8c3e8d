"""Two runs, or two rows of one, sample by sample."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .journal import read_records, read_samples
from .results import read_run, score_of
from .statistics import Interval, agreement, flips, mcnemar, non_inferior, paired_bootstrap, paired_ttest


@dataclass(frozen=True)
class Difference:
    """B minus A for one pair of rows, on the samples that both answered."""

    a: str
    b: str
    samples: int
    score_a: float
    score_b: float
    difference: Interval
    lost: int
    gained: int
    p: float | None
    agreement: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_runs(
    a: str | Path, b: str | Path, *, rows: tuple[str, str] | None = None, margin: float = 0.01
) -> list[Difference]:
    """Row by row, B against A; `rows` names one row of each instead (their keys in `run.json`).

    The runs must ask the same suite. Raises `InputError` when they do not, or share no row.
    """
    one, two = Path(a), Path(b)
    runs = read_run(one), read_run(two)
    if runs[0]["suite"]["hash"] != runs[1]["suite"]["hash"]:
        raise InputError(
            f"{one} asks suite {runs[0]['suite']['hash']} and {two} {runs[1]['suite']['hash']}: nothing to pair"
        )
    samples = {s["id"]: s for s in read_samples(one)}
    found = read_records(one), read_records(two)
    keys = [{r["key"] for r in run["rows"]} for run in runs]
    pairs = [rows] if rows else [(r["key"], r["key"]) for r in runs[0]["rows"] if r["key"] in keys[1]]
    if not pairs:
        raise InputError(f"{one} and {two} have no row in common; name one of each")
    for side, key in enumerate(pairs[0] if rows else ()):
        if key not in keys[side]:
            raise InputError(
                f"{(one, two)[side]}: no row {key!r}; there are: {', '.join(sorted(keys[side]))}"
            )
    metric = runs[0]["suite"]["metric"]
    out = []
    for key_a, key_b in pairs:
        ids = [
            i
            for i, s in samples.items()
            if s["answers"] and all("text" in r.get((k, i), {}) for r, k in zip(found, (key_a, key_b)))
        ]
        if not ids:
            continue
        texts = [[r[k, i]["text"] for i in ids] for r, k in zip(found, (key_a, key_b))]
        scores = [[score_of(metric, t, samples[i]) for t, i in zip(ts, ids)] for ts in texts]
        interval = paired_bootstrap(scores[0], scores[1], [samples[i]["group"] for i in ids])
        changed = flips(*scores)
        binary = {v for s in scores for v in s} <= {0.0, 1.0}
        p = mcnemar(*scores).p if binary else paired_ttest(*scores).p if len(ids) > 1 else None
        means = [sum(s) / len(s) for s in scores]
        out.append(
            Difference(
                key_a, key_b, len(ids), means[0], means[1], interval, changed.lost, changed.gained, p,
                agreement(*texts), non_inferior(interval, margin),
            )
        )  # fmt: skip
    return out
