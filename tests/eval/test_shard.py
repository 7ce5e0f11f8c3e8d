"""Several ranks on one folder: the plan, who takes what, and that neither kills nor another world change a number."""

import functools
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time

import pytest
import torch
import transformers

from tests.eval.conftest import write_suite
from tokenprune.chat import load_chat
from tokenprune.errors import InputError
from tokenprune.eval import Sample, Shard, evaluate, load_config, load_suite
from tokenprune.eval.answer import Answerer
from tokenprune.eval.journal import Journal, Records, journals, read_records
from tokenprune.eval.shard import UNIT, one_at_a_time, plan_batches

OPTIONS = dict(methods=["flashvlm"], keeps=[0.25], batch=2, seeds=1, max_new_tokens=3, efficiency=0)
forks = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded torch")


def samples(groups):
    return [Sample(f"{i:03d}", "q", ("a",), None, str(g)) for i, g in enumerate(groups)]


@pytest.fixture(scope="module")
def whole(chat, tmp_path_factory):
    """An undisturbed run of one process."""
    folder = tmp_path_factory.mktemp("whole")
    listing = write_suite(folder / "suite")
    return listing, evaluate(chat, str(listing), out=folder / "run", **OPTIONS)


def texts(folder):
    return {place: r.get("text") for place, r in read_records(folder).items()}


@pytest.mark.parametrize("size", [1, 2, 5, 32])
def test_batches_hold_whole_pictures_and_fill_up(size):
    draw = random.Random(size)
    asked = samples([draw.randrange(40) for _ in range(150)])
    units = plan_batches(asked, size)
    assert sorted(s.id for unit in units for batch in unit for s in batch) == [s.id for s in asked]
    homes = [{s.group for batch in unit for s in batch} for unit in units]
    assert sum(map(len, homes)) == len(set().union(*homes))  # no picture in two units
    for unit, groups in zip(units, homes):
        assert all(len(batch) == size for batch in unit[:-1]) and 0 < len(unit[-1]) <= size
        assert len(groups) == 1 or sum(map(len, unit)) <= UNIT * size


def test_one_question_a_picture_is_cut_into_plain_slices():
    asked = samples(range(50))
    batches = [batch for unit in plan_batches(asked, 4) for batch in unit]
    assert batches == [tuple(asked[i : i + 4]) for i in range(0, 50, 4)]


@pytest.mark.parametrize("world", [1, 2, 3, 7, 40])
def test_shares_are_disjoint_and_every_rank_knows_the_rest(world):
    units = plan_batches(samples(range(100)), 4)
    every = [batch for unit in units for batch in unit]
    own = []
    for rank in range(world):
        order = list(Shard(rank, world).order(units, 8))
        assert sorted(b[0].id for b, _ in order) == [b[0].id for b in every]
        mine = sum(len(unit) for unit in units[rank::world])
        own += [b for b, _ in order[:mine]]
        assert all(row == 0 for _, row in order[:mine])
        assert {row for _, row in order[mine:]} <= {rank * 8 // world}
    assert sorted(b[0].id for b in own) == [b[0].id for b in every]


@pytest.mark.parametrize(("told", "shard"), [
    ({}, Shard()),
    ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}, Shard(2, 4, 0)),
    ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}, Shard(5, 8, 1)),
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, Shard()),  # the batch script itself, not srun
    ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, Shard(1, 2, 1)),
    ({"RANK": "3"}, Shard()),
    ({"RANK": "3", "WORLD_SIZE": "2"}, Shard()),
])  # fmt: skip
def test_the_launcher_says_who_we_are(monkeypatch, told, shard):
    for name in [n for n in os.environ if n.startswith("SLURM_")] + ["RANK", "WORLD_SIZE", "LOCAL_RANK"]:
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert Shard.from_environment() == shard


def test_a_shard_by_hand():
    assert Shard.parse("1/3") == Shard(1, 3, 1)
    for bad in ("3/3", "1", "a/b", "-1/2", "1/0"):
        with pytest.raises(InputError, match="of three"):
            Shard.parse(bad)


def test_every_rank_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert Shard(5, 8, 1).device("cuda") == "cuda:1"
    assert Shard(5, 8, 5).device("cuda") == "cuda:1"
    assert [Shard(1, 2, 1).device(d) for d in ("cpu", "cuda:3")] == ["cpu", "cuda:3"]
    assert Shard().device("cuda") == "cuda"


def test_device_map_of_a_configuration_reaches_from_pretrained(vlm, listing, monkeypatch):
    config = listing.parent / "mine.yaml"
    config.write_text(
        f"suite: questions.jsonl\nmodel: {vlm}\nmethods: [flashvlm]\nkeeps: [4]\nlimit: 3\nseeds: 1\n"
        "max_new_tokens: 2\nefficiency: 0\ndevice_map: auto\n"
    )
    given, real = [], transformers.AutoModelForImageTextToText.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModelForImageTextToText,
        "from_pretrained",
        lambda *a, **k: (given.append(k.get("device_map")), real(*a, **k))[1],
    )
    results = evaluate(**vars(load_config(config)), out=listing.parent / "run")
    assert given == ["auto"] and results.row("flashvlm", 4)["answered"] == results.row("none")["answered"] > 0
    load_chat("tiny-llava", device_map={"": "cpu"})
    assert given[1:] == [{"": "cpu"}]


def test_records_are_read_on_while_others_write(tmp_path):
    a, b = (Journal(tmp_path, {"x": 1}, rank=rank) for rank in range(2))
    records = Records(tmp_path)
    a.append([{"row": "r", "id": "1", "text": "é"}])
    with open(b.path, "ab") as file:
        file.write(b'{"row": "r", "id": "2", "te')  # seen in the middle of its write
    assert [r["id"] for r in records.update()] == ["1"] and records.update() == []
    with open(b.path, "ab") as file:
        file.write(b'xt": "b"}\n')
    assert [r["id"] for r in records.update()] == ["2"]
    assert records.found == read_records(tmp_path)
    os.truncate(b.path, 0)  # a failed write was taken back
    with open(b.path, "ab") as file:
        file.write(b'{"row": "r", "id": "3", "text": "c"}\n')
    assert [r["id"] for r in records.update()] == ["3"]


def test_ranks_one_after_the_other_equal_one_process(whole, chat, tmp_path, monkeypatch):
    """The first does everything, because nobody else comes; the second then asks nothing and sums up alike."""
    listing, results = whole
    first = evaluate(chat, str(listing), out=tmp_path / "run", shard=Shard(1, 2), **OPTIONS)
    assert [p.name for p in journals(tmp_path / "run")] == ["journal-1.jsonl"] and first.written
    assert first.body == results.body and texts(first.folder) == texts(results.folder)
    monkeypatch.setattr(Answerer, "answer", lambda *a: pytest.fail("asked again"))
    assert (
        evaluate(chat, str(listing), out=tmp_path / "run", shard=Shard(0, 3), **OPTIONS).body == results.body
    )


def test_what_another_rank_answers_meanwhile_is_left_to_it(whole, chat, tmp_path, monkeypatch):
    """While rank 0 answers its first batch, rank 1 answers all that is its own."""
    listing, results = whole
    suite = load_suite(str(listing))
    theirs = [b for unit in plan_batches(suite.samples, 2)[1::2] for b in unit]
    records = read_records(results.folder)
    rows = {row for row, _ in records}
    asked, real = [], Answerer.answer

    def answer(self, row, images, questions):
        if not asked:
            lines = [records[row, s.id] for row in sorted(rows) for batch in theirs for s in batch]
            with open(tmp_path / "run/journal-1.jsonl", "w") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
        asked.append(len(images))
        return real(self, row, images, questions)

    monkeypatch.setattr(Answerer, "answer", answer)
    again = evaluate(chat, str(listing), out=tmp_path / "run", shard=Shard(0, 2), **OPTIONS)
    assert again.body == results.body
    assert sum(asked) == len(rows) * (12 - sum(map(len, theirs)))  # nothing of rank 1's


def test_a_failing_sample_is_tried_by_one_rank(chat, listing, monkeypatch):
    (listing.parent / "3.png").write_bytes(b"broken")
    run = functools.partial(evaluate, chat, str(listing), out=listing.parent / "run", **OPTIONS)
    results = run(shard=Shard(0, 2))
    attempts = {r["attempt"] for r in read_records(results.folder).values() if "error" in r}
    assert attempts == {1} and results.failed == 2 * len(results.rows)


@forks
def test_the_lock_goes_with_its_process(tmp_path):
    ready = multiprocessing.get_context("fork").Event()

    def hold():
        with one_at_a_time(tmp_path, Shard(0, 2)):
            ready.set()
            time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=hold, daemon=True)
    process.start()
    assert ready.wait(30)
    threading.Timer(0.3, process.kill).start()
    with one_at_a_time(tmp_path, Shard(1, 2)):
        process.join()
        assert process.exitcode == -signal.SIGKILL


@forks
@pytest.mark.slow
def test_two_at_once_equal_one_process(whole, chat, tmp_path):
    listing, results = whole
    run = functools.partial(evaluate, chat, str(listing), out=tmp_path / "run", **OPTIONS)
    both = ranks(2, run)
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert json.loads((tmp_path / "run/results.json").read_text()) == results.body
    assert len(journals(tmp_path / "run")) == 2 and not list((tmp_path / "run").glob("*.part"))


CONFIG = """\
model: tiny-llava
suite: {name: scenes, n: 24}
methods: [flashvlm]
keeps: [0.25]
batch: 3
seeds: 1
efficiency: 0
threads: 1
"""


def ranks(world, run):
    """As many processes as a launcher would start, told so by their environment as it tells them."""

    def be(rank):
        torch.set_num_threads(1)  # makes the thread pool anew after the fork, before several threads want it
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        run()

    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=be, args=(rank,), daemon=True) for rank in range(world)]
    for process in started:
        process.start()
    return started


@forks
@pytest.mark.slow
def test_a_killed_rank_and_another_world_give_the_undisturbed_numbers(tmp_path):
    """Two ranks, one of them killed with -9, the other stopped as launchers then do; three, to the end."""
    (tmp_path / "mine.yaml").write_text(CONFIG)
    run = functools.partial(evaluate, **vars(load_config(tmp_path / "mine.yaml")))
    undisturbed, out = run(out=tmp_path / "alone"), tmp_path / "run"
    total = len(read_records(undisturbed.folder))
    first = ranks(2, functools.partial(run, out=out))
    journal = [out / f"journal-{rank}.jsonl" for rank in range(2)]
    while not all(path.exists() and path.read_bytes().count(b"\n") > 1 for path in journal):
        assert all(process.is_alive() for process in first)
        time.sleep(0.005)
    first[1].kill()
    first[0].terminate()
    for process in first:
        process.join(60)
    assert [process.exitcode for process in first] == [-signal.SIGTERM, -signal.SIGKILL]
    assert 0 < len(read_records(out)) < total and not (out / "results.json").exists()
    for process in ranks(3, functools.partial(run, out=out)):
        process.join(300)
        assert process.exitcode == 0
    assert len(journals(out)) == 3 and texts(out) == texts(undisturbed.folder)
    assert json.loads((out / "results.json").read_text()) == undisturbed.body


@forks
@pytest.mark.slow
def test_those_who_are_left_do_what_a_dead_rank_had_to_do(whole, chat, tmp_path):
    listing, results = whole
    run = functools.partial(evaluate, chat, str(listing), out=tmp_path / "run", **OPTIONS)
    left, dead = ranks(2, run)
    dead.kill()
    left.join(120)
    assert left.exitcode == 0 and json.loads((tmp_path / "run/results.json").read_text()) == results.body
