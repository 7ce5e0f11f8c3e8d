"""How fast a two-stage index answers, how long it takes to build and how large it is, with generated vectors.

    python -m tokenprune.bench.retrieval                                   # 50,000 pictures: 2.5 GB, some minutes
    python -m tokenprune.bench.retrieval --pictures 2000 --queries 20      # a first look

Times of single queries are wall clock, which other work on the machine lengthens, and user CPU time, which it hardly
does. Warm: the same queries have been answered once before. Cold: a fresh process, the index's files dropped from
the system's cache; from opening the index to the first answer, with Python's imports counted apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ..kernels import unit
from ..retrieval import Encoded, Index, Spec
from .machine import machine, versions
from .timer import cpu_seconds

SCHEMA = "tokenprune.bench.retrieval/1"
CHUNK = 1000
"""Pictures of one call of `add`."""


def generate(pictures: int, spec: Spec, seed: int = 0) -> Iterator[Encoded]:
    """`CHUNK` pictures at a time, every one different: one chunk drawn, then turned around its dimensions."""
    g = torch.Generator().manual_seed(seed)
    count = min(CHUNK, pictures)
    centre = torch.randn(count, 1, spec.width, generator=g)
    tokens = unit(centre + torch.randn(count, spec.tokens, spec.width, generator=g))
    for start in range(0, pictures, CHUNK):
        turned = tokens.roll(start // CHUNK, dims=2)[: pictures - start]
        yield Encoded(turned.half(), unit(turned.mean(1)).half())


def ask(index: Index, queries: int, query_tokens: int, seed: int = 1) -> Encoded:
    """Stored pictures in other words: their tokens with as much noise again."""
    g = torch.Generator().manual_seed(seed)
    rows = np.sort(np.random.default_rng(seed).choice(len(index), queries, replace=len(index) < queries))
    tokens = index.tokens(rows).float()
    tokens = tokens[:, torch.arange(query_tokens) % tokens.shape[1]]
    tokens = unit(tokens + torch.randn(tokens.shape, generator=g) / tokens.shape[2] ** 0.5)
    return Encoded(tokens.half(), unit(tokens.mean(1)).half())


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, user seconds, and what `work` gave."""
    wall, user = time.perf_counter(), cpu_seconds()
    out = work()
    return time.perf_counter() - wall, cpu_seconds() - user, out


def figures(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    each = np.asarray(seconds) * 1000
    parts = {
        "p50": np.percentile(each, 50),
        "p95": np.percentile(each, 95),
        "max": each.max(),
        "mean": each.mean(),
    }
    return {name: round(float(value), 2) for name, value in parts.items()}


def passes(index: Index, queries: Encoded, shortlist: int) -> dict[str, dict[str, float]]:
    """Every query alone: latencies of one pass over them."""
    wall, user = [], []
    for i in range(len(queries)):
        one = Encoded(queries.tokens[i : i + 1], queries.single[i : i + 1])
        w, u, _ = timed(partial(index.search, one, top=10, shortlist=shortlist))
        wall.append(w)
        user.append(u)
    return {"wall_ms": figures(wall), "user_ms": figures(user)}


def forget(folder: Path) -> bool:
    """Ask the system to drop the files of a folder from its cache; False where it cannot be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def cold(folder: Path, shortlist: int, query: Path) -> dict[str, float]:
    """In the fresh process: from opening the index to its first answer."""
    body = np.load(query)
    one = Encoded(torch.from_numpy(body["tokens"]), torch.from_numpy(body["single"]))
    index_wall, index_user, index = timed(lambda: Index.open(folder))
    wall, user, _ = timed(lambda: index.search(one, top=10, shortlist=shortlist))
    return {
        "open": round(index_wall, 3), "first_answer": round(wall, 3), "total": round(index_wall + wall, 3),
        "user": round(index_user + user, 3),
    }  # fmt: skip


def cold_runs(
    folder: Path, queries: Encoded, shortlist: int, threads: int, count: int
) -> list[dict[str, float]]:
    """Each in a process of its own."""
    found = []
    for i in range(count):
        query = folder.parent / "query.npz"
        np.savez(query, tokens=queries.tokens[i : i + 1].numpy(), single=queries.single[i : i + 1].numpy())
        dropped = forget(folder)
        command = [
            sys.executable,
            "-m",
            "tokenprune.bench.retrieval",
            "--cold",
            str(query),
            "--folder",
            str(folder),
        ]
        command += ["--shortlist", str(shortlist), "--threads", str(threads)]
        started = time.perf_counter()
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        body = json.loads(out.splitlines()[-1])
        found.append({**body, "with_python": round(time.perf_counter() - started, 3), "dropped": dropped})
        query.unlink()
    return found


def bench(
    folder: Path,
    spec: Spec,
    pictures: int,
    queries: int,
    query_tokens: int,
    shortlist: int,
    colds: int,
    threads: int,
) -> dict[str, Any]:
    """Build in `folder`, then ask."""
    index = Index.create(folder, spec)
    adding = [0.0, 0.0]
    for chunk in generate(pictures, spec):
        names = [f"{len(index) + i:06d}" for i in range(len(chunk))]
        wall, user, _ = timed(partial(index.add, names, chunk))
        adding = [adding[0] + wall, adding[1] + user]
    index.close()
    size = index.disk_bytes
    opening, opening_user, index = timed(partial(Index.open, folder))
    asked = ask(index, queries, query_tokens)
    first, first_user, _ = timed(partial(index.search, asked, top=1, shortlist=0))
    before = passes(index, asked, shortlist)
    warm = passes(index, asked, shortlist)
    alone = passes(index, asked, 0)
    found = index.search(asked, top=1, shortlist=shortlist)
    body = {
        "schema": SCHEMA,
        "setting": {"pictures": pictures, "tokens": spec.tokens, "width": spec.width, "queries": queries,
                    "query_tokens": query_tokens, "shortlist": shortlist, "threads": threads, "first_stage": "Flat"},
        "build": {"wall_s": round(adding[0], 2), "user_s": round(adding[1], 2), "calls": -(-pictures // CHUNK)},
        "disk_bytes": size,
        "bytes_a_picture": round(size / pictures, 1),
        "open": {"wall_s": round(opening, 3), "user_s": round(opening_user, 3)},
        "faiss": {"wall_s": round(first, 3), "user_s": round(first_user, 3)},
        "first_pass": before,
        "warm": warm,
        "single_vector_only": alone,
        "self_found": round(float(np.mean(found.scores[:, 0] > 0.3)), 3),
    }  # fmt: skip
    del index
    body["cold"] = cold_runs(folder, asked, shortlist, threads, colds)
    return body


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Latency, build time and size of a two-stage index.")
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--query-tokens", type=int, default=64)
    parser.add_argument("--shortlist", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--colds", type=int, default=3, help="fresh processes")
    parser.add_argument("--folder", type=Path, default=Path("out/bench/retrieval.index"))
    parser.add_argument("--keep", action="store_true", help="leave the index there")
    parser.add_argument("--out", type=Path, default=Path("out/bench/retrieval.json"))
    parser.add_argument("--cold", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    import faiss

    torch.set_num_threads(given.threads)
    faiss.omp_set_num_threads(given.threads)
    if given.cold:
        sys.stdout.write(json.dumps(cold(given.folder, given.shortlist, given.cold)) + "\n")
        return
    load = os.getloadavg()
    spec = Spec(given.tokens, given.width, given.width)
    try:
        body = bench(given.folder, spec, given.pictures, given.queries, given.query_tokens, given.shortlist,
                     given.colds, given.threads)  # fmt: skip
    finally:
        if not given.keep:
            shutil.rmtree(given.folder, ignore_errors=True)
    body |= {"load": {"before": load, "after": os.getloadavg()}, "versions": versions(), "machine": machine()}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    show(body, Console())


def show(body: dict[str, Any], screen: Console) -> None:
    """One table."""
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("", "p50", "p95", "max", "user p50", "user p95"):
        table.add_column(head, justify="left" if not head else "right")
    for name in ("warm", "first_pass", "single_vector_only"):
        wall, user = body[name]["wall_ms"], body[name]["user_ms"]
        cells = [*(wall[k] for k in ("p50", "p95", "max")), *(user[k] for k in ("p50", "p95"))]
        table.add_row(name.replace("_", " "), *(f"{value:.1f} ms" for value in cells))
    screen.print(table)
    screen.print(f"build {body['build']['wall_s']} s, {body['disk_bytes'] / 1e9:.2f} GB; cold {body['cold']}")


if __name__ == "__main__":
    main()
