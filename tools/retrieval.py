"""Write the measured part of docs/retrieval.md from results/: `python tools/retrieval.py`.

tokenprune eval craters --out out/craters && cp out/craters/results.json results/craters.json
tokenprune bench --only retrieval --out results/bench_retrieval.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenprune.retrieval.report import table_of

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "retrieval.md"
MARK = "<!-- measured: written by tools/retrieval.py -->\n"
Body = Mapping[str, Any]

PUBLISHED = {
    ("selected", 16): "44.4", ("aggregated", 16): "62.3 (+17.9)", ("selected", 64): "71.6", ("aggregated", 64): "76.0",
}  # fmt: skip
"""mAP by attention seeds, of CraterBench-R (2026, arXiv:2604.06245)."""

DIFFERS = (
    "What differs: there 50,000 pictures of 25,000 real craters and a self-supervised ViT of width 384 or 768 that "
    "never saw them; here {gallery} drawn pictures and a ViT of width {width} trained on such drawings (other ground) "
    "by their correspondences. There a shortlist of 100 is 0.2 % of the gallery, here {share:.0%}. Right answers, "
    "recall and average precision are defined alike; behind a shortlist the other pictures keep the order of the "
    "single vector."
)


def measured(body: Body | None, bench: Body | None) -> str:
    """The sections under the mark, of the files that are there."""
    return "\n".join([*(_worth(body) if body else ()), *([_speed(bench)] if bench else ())])


def _worth(body: Body) -> list[str]:
    suite, tower = body["suite"], body["tower"]
    title = f"`{tower['name']}` {tower['version'] or ''} on {suite['name']} (hash {suite.get('hash', '')})"
    return [
        f"## What K tokens are worth\n\n{title}: {suite['gallery']} gallery pictures, {suite['queries']} queries, "
        f"{body['protocol']['match']}, first stage `{body['protocol']['first_stage']}`. mAP in points with a 95 % "
        "interval over query craters. `query all`: mAP where the query keeps all its tokens. `of full`: share of the "
        f"same tokens matched with every picture. Repeat with `tokenprune eval craters`.\n\n{table_of(body['rows'])}",
        f"## Beside what was published\n\n{_beside(body)}\n"
        + DIFFERS.format(gallery=suite["gallery"], width=tower["width"], share=min(1, 100 / suite["gallery"]))
        + "\n",
    ]


def _beside(body: Body) -> str:
    rows = body["rows"]
    best = max((r for r in rows if r["kind"] == "single"), key=lambda r: r["map"])
    whole = next(r for r in rows if r["kind"] == "all")
    lines = ["| mAP | published | here |", "| --- | ---: | ---: |"]
    lines.append(f"| single vector, the best | 55.3 | {_points(best)} (`{best['label']}`) |")
    picked = {(r["kind"], r.get("k")): r for r in rows if r["label"] == whole["label"]}
    for (kind, k), published in PUBLISHED.items():
        row = picked.get((kind, k))
        if row is not None:
            gain = (
                f" ({100 * (row['map'] - picked['selected', k]['map']):+.1f})" if kind == "aggregated" else ""
            )
            lines.append(f"| K = {k}, {kind} | {published} | {_points(row)}{gain} |")
    lines.append(f"| all {whole['k']} tokens | 74.4 | {_points(whole)} |")
    for row in rows:
        if row["kind"] == "two-stage" and row["k"] == 64:
            published = (
                "89 to 94 %" if row["shortlist"] == 100 else "about 96 %" if row["shortlist"] == 500 else ""
            )
            share = f"{100 * row['of_full']:.0f} %"
            lines.append(f"| shortlist {row['shortlist']}, share of full | {published} | {share} |")
    return "\n".join(lines) + "\n"


def _points(row: Body) -> str:
    return f"{100 * row['map']:.1f}"


def _speed(bench: Body) -> str:
    s, warm, cold = bench["setting"], bench["warm"], bench["cold"]
    totals = ", ".join(f"{c['total']:.2f} s ({c['user']:.2f} s of it user CPU)" for c in cold)
    return (
        f"## How fast\n\n{s['pictures']:,} pictures of {s['tokens']} tokens x {s['width']} dimensions, generated; "
        f"{s['queries']} queries of {s['query_tokens']} tokens, one at a time, shortlist {s['shortlist']}, "
        f"{s['threads']} threads, {bench['machine']['cpu']}, load average {bench['load']['before'][0]:.1f} before and "
        f"{bench['load']['after'][0]:.1f} after. `tokenprune bench --only retrieval`.\n\n"
        "| | p50 | p95 | user CPU, p50 | p95 |\n| --- | ---: | ---: | ---: | ---: |\n"
        f"| warm, ms | {warm['wall_ms']['p50']} | {warm['wall_ms']['p95']} | {warm['user_ms']['p50']} | "
        f"{warm['user_ms']['p95']} |\n\n"
        f"Cold, from opening to the first answer in a fresh process with the files dropped from the cache: {totals}. "
        f"Built in {bench['build']['wall_s']} s ({bench['build']['user_s']} s user CPU), "
        f"{bench['disk_bytes'] / 1e9:.2f} GB, {bench['bytes_a_picture']:,.0f} bytes a picture.\n"
    )


def main() -> None:
    files = [ROOT / "results" / f"{name}.json" for name in ("craters", "bench_retrieval")]
    body, bench = (json.loads(f.read_text(encoding="utf-8")) if f.is_file() else None for f in files)
    head = DOCUMENT.read_text(encoding="utf-8").split(MARK)[0]
    text = measured(body, bench)
    DOCUMENT.write_text(head + MARK + "\n" + text, encoding="utf-8")


if __name__ == "__main__":
    main()
