"""Fill the table of docs/benchmarks.md from the benchmarks themselves: `python tools/benchmarks.py [--check]`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tokenprune.eval.benchmarks import get_benchmark, list_benchmarks
from tokenprune.eval.benchmarks.base import Benchmark

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
HEADS = "| name | what | ids | split | rows | prompt (⏎: line break) | tokens | headline | own options |"


def line(benchmark: Benchmark) -> str:
    part = benchmark.parts[0]
    where = f"{part.config} / {part.split}" if part.config else part.split
    if len(benchmark.parts) > 1:
        where = f"{len(benchmark.parts)} tasks / {part.split}"
    cells = (
        f"`{benchmark.name}`", benchmark.title, ", ".join(f"`{one}`" for one in benchmark.ids), where, benchmark.rows,
        benchmark.prompt.replace("\n", "⏎"), str(benchmark.max_new_tokens), benchmark.lmms.headline or "mean",
        ", ".join(f"`{name}`" for name in benchmark.options),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def fill(page: str) -> str:
    """The page with its table made anew."""
    rows = [
        HEADS,
        "|---|---|---|---|---:|---|---:|---|---|",
        *(line(get_benchmark(n)) for n in list_benchmarks()),
    ]
    block = "\n".join(["<!-- benchmarks -->", *rows, "<!-- /benchmarks -->"])
    return re.sub(r"<!-- benchmarks -->.*<!-- /benchmarks -->", lambda _: block, page, flags=re.S)


def main() -> None:
    old = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(0 if old == fill(old) else f"docs/{PAGE.name} is stale: run `python tools/benchmarks.py`")
    PAGE.write_text(fill(old), encoding="utf-8")


if __name__ == "__main__":
    main()
