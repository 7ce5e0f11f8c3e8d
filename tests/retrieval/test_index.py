"""The index against brute force, on disk, and with its writer killed."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tokenprune.errors import InputError, PatchError, UnknownNameError
from tokenprune.kernels import unit
from tokenprune.retrieval import Encoded, Index, Spec, chamfer, maxsim
from tokenprune.retrieval import segments as segments_module

pytest.importorskip("faiss")
SPEC = Spec(tokens=4, width=8, single=6)
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def vectors(count: int, seed: int, tokens: int = 4) -> Encoded:
    g = torch.Generator().manual_seed(seed)
    return Encoded(
        unit(torch.randn(count, tokens, 8, generator=g)).half(),
        unit(torch.randn(count, 6, generator=g)).half(),
    )


def names(count: int, seed: int) -> list[str]:
    return [f"{seed}-{i}" for i in range(count)]


def filled(folder: Path, *counts: int) -> tuple[Index, Encoded]:
    index = Index.create(folder, SPEC)
    for seed, count in enumerate(counts):
        index.add(names(count, seed), vectors(count, seed))
    return index, Encoded.join([vectors(count, seed) for seed, count in enumerate(counts)])


@pytest.mark.parametrize("match", ["maxsim", "chamfer"])
def test_two_stages_are_those_of_brute_force(tmp_path, match):
    index, gallery = filled(tmp_path, 17, 1, 22)
    queries = vectors(5, 99, tokens=3)
    full = {"maxsim": maxsim, "chamfer": chamfer}[match](queries.tokens, gallery.tokens)
    first = queries.single.float() @ gallery.single.float().T
    every = index.search(queries, top=40, shortlist=None, match=match)
    assert np.array_equal(every.rows, full.argsort(dim=1, descending=True, stable=True).numpy())
    np.testing.assert_allclose(every.scores, full.sort(dim=1, descending=True)[0], rtol=1e-5, atol=1e-6)
    listed = first.argsort(dim=1, descending=True)[:, :12]
    expected = listed.gather(1, full.gather(1, listed).argsort(dim=1, descending=True))
    found = index.search(queries, top=5, shortlist=12, match=match)
    assert np.array_equal(found.rows, expected[:, :5].numpy())
    assert found.names[0][0] == index.names[found.rows[0, 0]]
    alone = index.search(queries, top=3, shortlist=0)
    assert np.array_equal(alone.rows, listed[:, :3].numpy())
    assert index.search(queries, top=7, shortlist=4).rows.shape == (5, 4)
    assert index.search(queries, top=99, shortlist=99).rows.shape == (5, 40)


def test_it_is_there_again_when_opened_and_grows(tmp_path):
    index, _ = filled(tmp_path / "i", 5, 6)
    queries = vectors(3, 50)
    before = index.search(queries, top=11)
    index.close()
    with Index.open(tmp_path / "i", write=True) as again:
        assert len(again) == 11 and again.spec == SPEC
        assert again.names == names(5, 0) + names(6, 1)
        found = again.search(queries, top=11)
        assert np.array_equal(found.rows, before.rows) and np.array_equal(found.scores, before.scores)
        assert again.add(["new"], vectors(1, 50)) == 12
        best = again.search(
            Encoded(queries.tokens[:1], queries.single[:1]), top=1
        )  # the first of seed 50 itself
        assert best.names == [["new"]]
        np.testing.assert_allclose(best.scores, 1, atol=2e-3)


def test_tokens_are_mapped_and_the_file_is_safetensors(tmp_path):
    from safetensors.numpy import load_file

    index, gallery = filled(tmp_path, 9)
    holder = index._segments[0].tokens
    while isinstance(holder, np.ndarray):
        assert not holder.flags.owndata and not holder.flags.writeable
        holder = holder.base
    assert isinstance(getattr(holder, "obj", holder), mmap.mmap)
    (path,) = tmp_path.glob("*.safetensors")
    body = load_file(path)
    assert body["tokens"].dtype == np.float16
    assert np.array_equal(body["tokens"], gallery.tokens.numpy())
    assert np.array_equal(body["single"], gallery.single.numpy())
    assert torch.equal(index.tokens(np.array([7, 0, 7])), gallery.tokens[[7, 0, 7]])
    assert index.disk_bytes == path.stat().st_size >= 9 * SPEC.bytes


def test_compacting_changes_nothing_but_files(tmp_path):
    index, _ = filled(tmp_path, 3, 4, 5)
    before = index.search(vectors(2, 9), top=12, shortlist=None)
    index.compact()
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    for found in (index, Index.open(tmp_path)):
        after = found.search(vectors(2, 9), top=12, shortlist=None)
        assert after.names == before.names and np.array_equal(after.scores, before.scores)
    index.add(["more"], vectors(1, 77))
    assert len(Index.open(tmp_path)) == 13


def test_other_first_stages(tmp_path):
    index = Index.create(tmp_path, SPEC, factory="HNSW8")
    index.add(names(30, 0), vectors(30, 0))
    found = Index.open(tmp_path).search(vectors(30, 0), top=1, shortlist=20)
    assert (found.rows[:, 0] == np.arange(30)).mean() > 0.9


def test_an_empty_index_answers_with_nothing(tmp_path):
    index = Index.create(tmp_path, SPEC)
    assert index.search(vectors(2, 0)).names == [[], []]
    assert index.add([], vectors(0, 0)) == 0
    index.add(["a"], vectors(1, 1))
    assert index.search(vectors(0, 0)).names == []


def test_one_writer_at_a_time_and_readers_besides(tmp_path):
    index, _ = filled(tmp_path, 2)
    reader = Index.open(tmp_path)
    for ask in (
        lambda: Index.open(tmp_path, write=True),
        lambda: reader.add(["x"], vectors(1, 5)),
        reader.compact,
    ):
        with pytest.raises(PatchError):
            ask()
    index.add(["x"], vectors(1, 5))
    assert len(reader) == 2  # what was there when it was opened
    index.close()
    Index.open(tmp_path, write=True).close()


def test_what_is_refused(tmp_path):
    index, _ = filled(tmp_path, 2)
    bad = vectors(1, 0)
    bad.tokens[0, 0, 0] = float("nan")
    for ask in (
        lambda: Index.create(tmp_path, SPEC),
        lambda: Index.open(tmp_path / "none"),
        lambda: index.add(["0-0"], vectors(1, 0)),
        lambda: index.add(["a", "a"], vectors(2, 0)),
        lambda: index.add(["a\nb"], vectors(1, 0)),
        lambda: index.add(["a"], vectors(2, 0)),
        lambda: index.add(["a"], vectors(1, 0, tokens=5)),
        lambda: index.add(["a"], bad),
        lambda: index.search(vectors(1, 0), top=0),
        lambda: index.search(vectors(1, 0), shortlist=-1),
        lambda: index.search(Encoded(torch.zeros(1, 2, 3), torch.zeros(1, 6))),
    ):
        with pytest.raises(InputError):
            ask()
    with pytest.raises(UnknownNameError):
        index.search(vectors(1, 0), match="sum")
    assert len(index) == len(Index.open(tmp_path)) == 2


def test_damage_is_named(tmp_path):
    filled(tmp_path, 3, 4)[0].close()
    last = max(tmp_path.glob("*.safetensors"))
    whole = last.read_bytes()
    last.write_bytes(whole[:-5])
    with pytest.raises(InputError, match="damaged"):
        Index.open(tmp_path)
    last.write_bytes(whole)
    min(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(InputError, match="rows 0 to 3"):
        Index.open(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"schema": "other"}))
    with pytest.raises(InputError, match="other"):
        Index.open(tmp_path)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    index, _ = filled(tmp_path, 3)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments_module.os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        index.add(["x"], vectors(1, 5))
    monkeypatch.undo()
    assert len(index) == 3 and not list(tmp_path.glob("*.part"))
    index.add(["x"], vectors(1, 5))
    assert len(Index.open(tmp_path)) == 4


def in_a_child(work) -> int:
    """Run `work` in a forked process; the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forks
@pytest.mark.parametrize(("name", "at", "there"), [
    ("save_file", "before", 3), ("save_file", "half", 3), ("save_file", "after", 3),
    ("replace", "before", 3), ("replace", "after", 8),
])  # fmt: skip
def test_killed_at_every_step_of_an_add(tmp_path, name, at, there):
    filled(tmp_path, 3)[0].close()

    def work() -> None:
        home = segments_module.os if name == "replace" else segments_module
        real = getattr(home, name)

        def deadly(*args) -> None:
            if at == "half":
                Path(args[1]).write_bytes(b"half a file")
            elif at == "after":
                real(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(home, name, deadly)
        Index.open(tmp_path, write=True).add(names(5, 1), vectors(5, 1))

    assert in_a_child(work) == -signal.SIGKILL
    assert len(Index.open(tmp_path)) == there
    with Index.open(tmp_path, write=True) as index:  # the lock went with the process
        assert not list(tmp_path.glob("*.part"))
        index.add(names(4, 2), vectors(4, 2))
        assert len(index) == there + 4
        assert torch.equal(index.tokens(np.arange(there, there + 4)), vectors(4, 2).tokens)


WRITER = """
import sys
from tests.retrieval.test_index import Index, names, vectors
index = Index.open(sys.argv[1], write=True)
start = len(index) // 3
for seed in range(start, start + 100000):
    index.add(names(3, seed), vectors(3, seed))
    print(seed + 1, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.02])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path, wait):
    """A process of its own, killed while it adds; three pictures a call."""
    Index.create(tmp_path, SPEC).close()
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert process.stdout is not None
    acknowledged = 0
    for _ in range(4):
        acknowledged = int(process.stdout.readline())
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    for line in process.stdout.read().split():
        acknowledged = max(acknowledged, int(line))
    assert process.wait() == -signal.SIGKILL
    with Index.open(tmp_path, write=True) as index:
        calls = len(index) // 3
        assert acknowledged <= calls <= acknowledged + 1 and len(index) % 3 == 0
        assert index.names == [n for seed in range(calls) for n in names(3, seed)]
        expected = torch.cat([vectors(3, seed).tokens for seed in range(calls)])
        assert torch.equal(index.tokens(np.arange(len(index))), expected)
        index.add(["after"], vectors(1, 12345))
        assert index.search(vectors(1, 12345), top=1).names == [["after"]]
