"""The benchmark runs end to end on an index of no size; nothing is said about its times."""

from __future__ import annotations

import json

import pytest
import torch

from tokenprune.bench.retrieval import CHUNK, generate, main
from tokenprune.retrieval import Spec

pytest.importorskip("faiss")


def test_generated_pictures_are_all_different():
    chunks = list(generate(CHUNK + 5, Spec(2, 16, 16)))
    assert [len(c) for c in chunks] == [CHUNK, 5]
    every = torch.cat([c.tokens for c in chunks]).flatten(1)
    assert len(every.unique(dim=0)) == CHUNK + 5


@pytest.mark.slow
def test_runs_end_to_end(tmp_path):
    threads = torch.get_num_threads()
    try:
        main([
            "--pictures", "300", "--tokens", "4", "--width", "16", "--queries", "6", "--query-tokens", "5",
            "--shortlist", "20",
            "--colds", "1", "--folder", str(tmp_path / "i"), "--out", str(tmp_path / "b.json"), "--threads", "1",
        ])  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    body = json.loads((tmp_path / "b.json").read_text())
    assert body["schema"] == "tokenprune.bench.retrieval/1" and body["disk_bytes"] > 300 * 2 * 5 * 16
    assert body["warm"]["wall_ms"]["p95"] > 0 and len(body["cold"]) == 1 and body["self_found"] == 1.0
    assert not (tmp_path / "i").exists()
