"""The tool that writes the measured part of docs/retrieval.md, on made-up figures."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def tool():
    spec = importlib.util.spec_from_file_location("retrieval_tool", ROOT / "tools" / "retrieval.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(kind: str, label: str, points: float, **facts) -> dict:
    rest = {"low": 0.1, "high": 0.9, "r1": 0.5, "r5": 0.6, "r10": 0.7, "bytes": 100}
    return {"kind": kind, "label": label, "map": points / 100, **rest, **facts}


def test_ours_stands_beside_what_was_published():
    body = {
        "suite": {"name": "craters", "hash": "abc", "gallery": 400, "queries": 20},
        "tower": {"name": "t", "version": "1", "width": 96},
        "protocol": {"match": "maxsim", "first_stage": "class"},
        "rows": [
            row("single", "class", 40), row("single", "mean", 30),
            row("selected", "attention", 50, k=16), row("all", "attention", 80, k=196),
            row("aggregated", "attention", 62.5, k=16), row("aggregated", "fps", 99, k=16),
            row("two-stage", "attention", 72, k=64, shortlist=100, of_full=0.9),
        ],
    }  # fmt: skip
    text = tool().measured(body, None)
    assert "| single vector, the best | 55.3 | 40.0 (`class`) |" in text
    assert "| K = 16, aggregated | 62.3 (+17.9) | 62.5 (+12.5) |" in text
    assert "| all 196 tokens | 74.4 | 80.0 |" in text
    assert "| shortlist 100, share of full | 89 to 94 % | 90 % |" in text
    assert "here 25%" in text and "How fast" not in text


def test_the_benchmark_stands_alone_too():
    figures = {"p50": 1.0, "p95": 2.0, "max": 3.0, "mean": 1.5}
    bench = {
        "setting": {"pictures": 50000, "tokens": 64, "width": 384, "queries": 200, "query_tokens": 64, "shortlist": 100,
                    "threads": 2},
        "warm": {"wall_ms": figures, "user_ms": figures}, "cold": [{"total": 0.5, "user": 0.25}],
        "build": {"wall_s": 60.0, "user_s": 20.0}, "disk_bytes": 2_500_000_000, "bytes_a_picture": 50000.0,
        "machine": {"cpu": "a cpu"}, "load": {"before": [1.0], "after": [2.0]},
    }  # fmt: skip
    text = tool().measured(None, bench)
    assert "| warm, ms | 1.0 | 2.0 | 1.0 | 2.0 |" in text and "2.50 GB" in text and "0.50 s" in text
