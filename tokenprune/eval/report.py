"""A run's figures as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .journal import write_file
from .results import Results
from .rows import NONE
from .totals import reported

Row = dict[str, Any]


def write_report(results: Results) -> list[Path]:
    """`report.md`, `rows.csv` and, where matplotlib is installed, the plots; returns what was written."""
    folder = results.folder
    written = [folder / "report.md", folder / "rows.csv"]
    write_file(written[0], markdown(results.body))
    write_file(written[1], to_csv(results.body))
    from .plots import write_plots

    return [*written, *write_plots(results)]


def keep_text(keep: float | int | None) -> str:
    """`keep` for people: 11.1 % or 64 tokens."""
    if keep is None:
        return ""
    return f"{keep} token{'s' * (keep != 1)}" if isinstance(keep, int) else f"{100 * keep:.3g} %"


def percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}"


def interval_text(interval: dict[str, float | None] | None, signed: bool = False) -> str:
    """In points: `-12.3 (-15.0 to -9.6)`."""
    if interval is None or interval["value"] is None:
        return ""
    form: Callable[[float | None], str] = lambda v: (  # noqa: E731
        "∞" if v is None else f"{100 * v:+.1f}" if signed else f"{100 * v:.1f}"
    )
    return f"{form(interval['value'])} ({form(interval['low'])} to {form(interval['high'])})"


def table(heads: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table, the first `left` columns left-aligned, the others right."""
    rule = ["---"] * left + ["---:"] * (len(heads) - left)
    return "\n".join("| " + " | ".join(line) + " |" for line in [list(heads), rule, *map(list, lines)])


def grid(body: dict[str, Any], cell: Callable[[Row], str], labels: Sequence[str] | None = None) -> str:
    """Methods down, keeps across; a method below its floor is `-` with the floor."""
    rows = [r for r in body["rows"] if r["keep"] is not None and (labels is None or r["label"] in labels)]
    keeps = sorted({r["keep"] for r in rows}, key=lambda k: (isinstance(k, int), -k))
    found = {(r["label"], r["keep"]): r for r in rows}
    lines = []
    for label in dict.fromkeys(r["label"] for r in rows):
        cells = [_cell(found.get((label, keep)), cell) for keep in keeps]
        lines.append([f"`{label}`", *cells])
    return table(["method", *map(keep_text, keeps)], lines)


def _cell(row: Row | None, cell: Callable[[Row], str]) -> str:
    if row is None:
        return ""
    if row["state"] == "floor":
        return "-" if row["floor"] is None else f"- (floor {percent(row['floor'])} %)"
    if row["state"] != "ok" or ("score" not in row and "agreement" not in row):
        return "-"
    return cell(row)


def score_cell(row: Row) -> str:
    """Score with its interval."""
    return interval_text(row.get("score"))


def markdown(body: dict[str, Any]) -> str:
    """The whole report."""
    return "\n\n".join(_parts(body)) + "\n"


def _parts(body: dict[str, Any]) -> Iterator[str]:
    suite, model, protocol = body["suite"], body["model"], body["protocol"]
    yield f"# {body['name']}: {model['name']} {model['version'] or ''}".rstrip()
    subset = " **subset**" if suite["subset"] else ""
    yield (
        f"{suite['samples']} samples{subset} of {suite['name']} ({suite['hash']}), metric {suite['metric']}, "
        f"{protocol['decoding']}, batch {protocol['batch']}, at most {protocol['max_new_tokens']} new tokens, "
        f"{model['dtype']} on {model['device']}."
    )
    plain = next(r for r in body["rows"] if r["label"] == NONE)
    graded = "score" in plain
    for row in body["rows"]:
        if row["keep"] is None and row["answered"]:
            share = interval_text(row.get("score")) if graded else f"{percent(row['agreement'])} agreement"
            more = f" ({protocol['blind']})" if row["label"] == "blind" and protocol["blind"] else ""
            yield f"`{row['label']}`{more}: **{share}**, {row['answered']} answers."
    if graded:
        yield "## Score\n\nPoints, with the 95 % interval of a bootstrap over pictures."
        yield grid(body, score_cell)
        if body.get("published"):
            yield f"## Beside the published values\n\n{published_note(body)}"
            yield published_rows(body)
        yield "## Difference from the unpruned answers\n\nPaired, same samples."
        yield grid(body, lambda r: interval_text(r.get("difference"), signed=True))
        yield "## Retained share of the unpruned score, %"
        yield grid(body, lambda r: interval_text(r.get("retained")))
    yield "## Agreement with the unpruned answer, %"
    yield grid(body, lambda r: percent(r["agreement"]))
    yield "## Equivalent tokens (layer average)"
    yield grid(body, lambda r: f"{r['tokens']['equivalent']:.1f} of {r['tokens']['before']:.0f}")
    if any(row.get("coverage") for row in body["rows"]):
        yield (
            "## Coverage\n\nDistance (1 - cosine, x 100) of the visual tokens to the nearest one that is left: mean, "
            "and in brackets the worst token's, of a few samples.\n\n"
            + grid(body, coverage_cell, [r["label"] for r in body["rows"] if r.get("coverage")])
        )
    if any(row.get("sparse") is not None for row in body["rows"]):
        yield (
            "## What is read and what is kept\n\nMethods of the decode stage drop nothing. Shares of the visual "
            "tokens, %: read by a layer that is not focal, read on layer average (focal layers read all), kept in the "
            "cache.\n\n"
            + reading(body)
        )
    if graded:
        yield (
            "## Every row\n\nLost: right unpruned, wrong here. p: McNemar (exact; graded scores: paired t), which "
            "takes questions about one picture as independent; the intervals above do not.\n\n"
            + _every_row(body)
        )
        if plain.get("kinds"):
            yield "## Kinds of question, points"
            yield _kinds(body)
        for metric in plain.get("totals", {}):
            yield f"## All answers together, by {metric}"
            yield totals(body, metric)
        for metric, found in plain.get("metrics", {}).items():
            yield f"## The same answers by {metric}, points"
            if found.get("differs"):
                share = percent(found["differs"])
                yield f"It scores {share} % of the unpruned answers otherwise than {suite['metric']} does."
            yield _other_metric(body, metric)
        if plain.get("answers"):
            yield "## What was answered, % of a kind's answers"
            yield _answers(body)
    if body["efficiency"]:
        yield _efficiency(body["efficiency"])
    if body["failures"]:
        yield "## Failed samples, not scored"
        lines = [
            f"- {f['reason']} ({len(f['samples'])} samples, first {f['samples'][0]})"
            for f in body["failures"]
        ]
        yield "\n".join(lines)
    refused = [r for r in body["rows"] if r["state"] == "unavailable"]
    if refused:
        yield "## Not available on this model"
        reasons = {r["label"]: r["reason"] for r in refused}
        yield "\n".join(f"- `{label}`: {reason}" for label, reason in reasons.items())
    machine, versions = body["machine"], body["versions"]
    yield "## Made with"
    yield ", ".join(f"{k} {v}" for k, v in {**versions, **machine}.items()) + "."


def totals(body: dict[str, Any], metric: str) -> str:
    """What only all answers together have, the number that papers report first; in points, MME's in its own unit."""
    from .benchmarks.registry import get_scorer

    scorer = get_scorer(metric)
    rows = [r for r in body["rows"] if r.get("totals", {}).get(metric)]
    names = list(dict.fromkeys(name for r in rows for name in r["totals"][metric]))
    names.sort(key=lambda name: name != scorer.headline)
    lines = [
        [f"`{r['label']}`", keep_text(r["keep"]), *(_total(r["totals"][metric].get(n), scorer.scale) for n in names)]
        for r in rows
    ]
    return table(["row", "keep", *names], lines, left=2)


def _total(found: dict[str, Any] | None, scale: float) -> str:
    if not found or "value" not in found:
        return ""
    return f"{scale * found['value']:.1f} ({scale * found['low']:.1f} to {scale * found['high']:.1f})"


def _every_row(body: dict[str, Any]) -> str:
    heads = ["row", "keep", "lost", "gained", "p (Holm)", f"verdict at {percent(body['protocol']['margin'], 0)} points",
             "empty", "repeats", "unfinished"]  # fmt: skip
    lines = []
    for row in body["rows"]:
        if "difference" not in row:
            continue
        broken = row["degenerate"]
        p = row.get("p_holm")
        lines.append([
            f"`{row['label']}`", keep_text(row["keep"]), str(row["lost"]), str(row["gained"]),
            "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}", row["verdict"],
            *(percent(broken[k]) for k in ("empty", "repeats", "unfinished")),
        ])  # fmt: skip
    return table(heads, lines, left=2)


def published_note(body: dict[str, Any]) -> str:
    """Where the published values are from, and whether they are of this model."""
    found, model = body["published"], body["model"]["name"]
    other = "" if found["model"] in ("", model) else f", of {found['model']} and not of {model}"
    return f"Published: {found['source'] or 'source not named'}{other}."


def published_rows(body: dict[str, Any]) -> str:
    """Ours beside theirs, for every row that has been published."""
    lines = [
        [f"`{r['label']}`", keep_text(r["keep"]), *beside(r, body)]
        for r in body["rows"]
        if r.get("published") is not None
    ]
    return table(["row", "keep", "ours", "published"], lines, left=2)


def beside(row: Row, body: dict[str, Any]) -> tuple[str, str]:
    """(ours, theirs) in the unit of the paper's table."""
    ours = reported(row, body["suite"]["metric"], body["published"]["total"])
    return "-" if ours is None else f"{ours:.1f}", f"{row['published']:g}"


def coverage_cell(row: Row) -> str:
    """Mean distance, and the worst token's."""
    found = row.get("coverage")
    return "" if not found else f"{100 * found['mean']:.1f} ({100 * found['worst']:.0f})"


def reading(body: dict[str, Any]) -> str:
    """What each row reads and keeps, and what it retains of the unpruned score."""
    lines = []
    for row in body["rows"]:
        if (row["keep"] is not None or row.get("sparse") is not None) and (tokens := row.get("tokens")):
            share = [tokens[what] / max(tokens["before"], 1) for what in ("equivalent", "kept")]
            cells = [percent(row.get("sparse")) or "-", *map(percent, share), interval_text(row.get("retained"))]
            lines.append([f"`{row['label']}`", keep_text(row["keep"]), *cells])
    return table(["row", "keep", "in a sparse layer", "layer average", "KV kept", "retained"], lines, left=2)


def _other_metric(body: dict[str, Any], metric: str) -> str:
    rows = [r for r in body["rows"] if r.get("metrics")]
    kinds = sorted({k for r in rows for k in r["metrics"][metric]["kinds"]})
    lines = [
        [
            f"`{r['label']}`",
            keep_text(r["keep"]),
            interval_text(r["metrics"][metric]["score"]),
            *(percent(r["metrics"][metric]["kinds"].get(k, {}).get("value")) for k in kinds),
        ]
        for r in rows
    ]
    return table(["row", "keep", "all", *kinds], lines, left=2)


def _answers(body: dict[str, Any]) -> str:
    rows = [r for r in body["rows"] if r.get("answers")]
    kinds = sorted({k for r in rows for k in r["answers"]})
    lines = [
        [
            f"`{r['label']}`",
            keep_text(r["keep"]),
            *(
                ", ".join(f"{text or '(nothing)'} {100 * s:.0f}" for text, s in r["answers"].get(k, {}).items())
                for k in kinds
            ),
        ]
        for r in rows
    ]
    return table(["row", "keep", *kinds], lines, left=2 + len(kinds))


def _kinds(body: dict[str, Any]) -> str:
    kinds = sorted({k for r in body["rows"] for k in r.get("kinds", {})})
    lines = [
        [
            f"`{r['label']}`",
            keep_text(r["keep"]),
            *(percent(r["kinds"].get(k, {}).get("value")) for k in kinds),
        ]
        for r in body["rows"]
        if r.get("kinds")
    ]
    return table(["row", "keep", *kinds], lines, left=2)


def _efficiency(costs: dict[str, Any]) -> str:
    protocol = costs["protocol"]
    lines = []
    for row in costs["rows"]:
        lines.append([
            f"`{row['label']}`", keep_text(row["keep"]),
            f"{1000 * row['prefill']['seconds']:.1f}", f"{row['prefill']['median']:.3f}",
            f"{row['decode']['median']:.3f}", f"{row['total']['median']:.3f}",
            f"{1000 * row['vision']:.1f}", f"{1000 * row['scoring']:.2f}",
            f"{row['kv_bytes'] / 2**20:.2f}", f"{row['flops'] / 1e9:.2f}", f"{row['peak_bytes'] / 2**20:.1f}",
        ])  # fmt: skip
    heads = ["row", "keep", "prefill ms", "prefill x", "decode x", "generate x", "of it tower ms", "scoring ms",
             "KV MiB", "GFLOP", "peak MiB"]  # fmt: skip
    noise = f"run-to-run variation of the unpruned prefill {percent(costs['noise'])} %"
    warning = " **Noisy: repeat on a quieter machine.**" if costs["noisy"] else ""
    head = (
        f"## Cost\n\n{protocol['clock']}, {protocol['threads']} threads, batch 1, {protocol['order']}, medians of "
        f"{protocol['pairs']} pairs on {protocol['samples']} samples, {protocol['decoded_tokens']} tokens generated; "
        f"x: share of the unpruned model's time. {noise}.{warning}"
    )
    return head + "\n\n" + table(heads, lines, left=2)


CSV_FIELDS = [
    *map(
        str,
        (
            "label keep state floor answered failed before after equivalent kept sparse score score_low score_high "
            "difference difference_low difference_high retained agreement lost gained p p_holm verdict empty repeats "
            "unfinished prefill_ratio decode_ratio kv_bytes flops peak_bytes"
        ).split(),
    )
]


def to_csv(body: dict[str, Any]) -> str:
    """One line a row, full precision."""
    costs = {(c["label"], c["keep"]): c for c in (body["efficiency"] or {}).get("rows", ())}
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in body["rows"]:
        cost = costs.get((row["label"], row["keep"]))
        flat = {k: row.get(k) for k in CSV_FIELDS if not isinstance(row.get(k), dict)}
        flat.update({k: v for k, v in row.get("tokens", {}).items()})
        for name in ("score", "difference"):
            ends = row.get(name) or {}
            flat.update(
                {name: ends.get("value"), f"{name}_low": ends.get("low"), f"{name}_high": ends.get("high")}
            )
        flat["retained"] = (row.get("retained") or {}).get("value")
        flat.update({k: row.get("degenerate", {}).get(k) for k in ("empty", "repeats", "unfinished")})
        if cost:
            flat.update(prefill_ratio=cost["prefill"]["median"], decode_ratio=cost["decode"]["median"],
                        kv_bytes=cost["kv_bytes"], flops=cost["flops"], peak_bytes=cost["peak_bytes"])  # fmt: skip
        writer.writerow(flat)
    return out.getvalue()
