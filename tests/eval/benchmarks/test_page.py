"""docs/benchmarks.md comes from the benchmarks; nobody edits it by hand."""

from __future__ import annotations

import runpy
from pathlib import Path

from tokenprune.eval.benchmarks import list_benchmarks

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_not_stale():
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page == runpy.run_path(str(ROOT / "tools" / "benchmarks.py"))["fill"](page), (
        "run python tools/benchmarks.py"
    )
    assert all(f"| `{name}` |" in page for name in list_benchmarks())
