import functools
import json
import multiprocessing
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from tests.eval.conftest import write_suite
from tokenprune import TokenPruneError, patch_model
from tokenprune.errors import InputError
from tokenprune.eval import evaluate, score_run
from tokenprune.eval import run as run_module
from tokenprune.eval.answer import Answerer
from tokenprune.eval.journal import read_records
from tokenprune.eval.rows import Row

OPTIONS = dict(methods=["flashvlm"], keeps=[0.25, 4], batch=4, seeds=2, max_new_tokens=3, efficiency=0)


def texts(folder):
    return {place: r.get("text") for place, r in read_records(folder).items()}


@pytest.fixture(scope="module")
def whole(chat, tmp_path_factory):
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    listing = write_suite(folder / "suite")
    results = evaluate(chat, str(listing), out=folder / "run", **OPTIONS)
    return listing, results


def test_every_sample_is_answered_under_every_row(whole):
    listing, results = whole
    labels = [(r["label"], r["keep"]) for r in results.rows]
    assert labels[:2] == [("none", None), ("blind", None)]
    assert set(labels[2:]) == {
        (name, keep) for name in ("random", "uniform", "pool", "resize", "flashvlm") for keep in (0.25, 4)
    }
    for row in results.rows:
        assert row["state"] == "ok" and row["failed"] == 0
        assert row["answered"] == 12 * (2 if row["label"] == "random" else 1)
        assert set(row["kinds"]) == {"a", "b"} and row["kinds"]["a"]["n"] == 6
    assert results.row("uniform", 0.25)["tokens"] == {"before": 16, "after": 4, "equivalent": 4, "kept": 4}
    assert results.row("resize", 4)["tokens"] == {"before": 16, "after": 4, "equivalent": 4, "kept": 4}
    assert results.row("blind")["tokens"]["equivalent"] == 0
    assert results.row("none")["agreement"] == 1.0
    assert results.body["protocol"]["blind"].startswith("text only")
    assert str(listing.parent) not in json.dumps(results.body)


def test_answers_are_those_of_the_model_itself(whole, chat):
    """The runner's answers against plain `generate` calls of the same batches."""
    listing, results = whole
    entries = [json.loads(line) for line in listing.read_text().splitlines()]
    entries.sort(key=lambda e: e["image"])  # stable: questions about one picture go together
    found = texts(results.folder)
    for start in range(0, 12, 4):
        part = entries[start : start + 4]
        images = [Image.open(listing.parent / e["image"]) for e in part]
        prompts = [f"USER: <image> {e['question']} ASSISTANT:" for e in part]
        chat.processor.tokenizer.padding_side = "left"
        inputs = chat.processor(images=images, text=prompts, padding=True, return_tensors="pt")
        for key, handle in (("none", None), ("uniform keep=0.25", {"keep": 0.25})):
            patch = patch_model(chat.model, "uniform", chat.processor, **handle) if handle else None
            out = chat.model.generate(**inputs, max_new_tokens=3, do_sample=False)
            if patch:
                patch.remove()
            answers = chat.processor.batch_decode(
                out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            )
            assert [found[key, e["id"]] for e in part] == [a.strip() for a in answers]


def test_a_finished_run_asks_nothing_again(whole, chat, monkeypatch):
    listing, results = whole
    monkeypatch.setattr(Answerer, "answer", lambda *a: pytest.fail("asked again"))
    again = evaluate(chat, str(listing), out=results.folder, **OPTIONS)
    assert again.body == results.body


def test_a_row_added_later_runs_alone(whole, chat, tmp_path, monkeypatch):
    listing, results = whole
    shutil.copytree(results.folder, tmp_path / "run")
    asked, real = [], Answerer.answer
    monkeypatch.setattr(
        Answerer, "answer", lambda self, row, *a: (asked.append(row.key), real(self, row, *a))[1]
    )
    more = evaluate(chat, str(listing), out=tmp_path / "run", **{**OPTIONS, "keeps": [0.25, 4, 0.5]})
    assert set(asked) == {k for k in asked if "keep=0.5" in k} and len(set(asked)) == 6
    for row in results.rows:
        assert {**more.row(row["label"], row["keep"]), "p_holm": 0} == {**row, "p_holm": 0}


@pytest.mark.parametrize("seed", range(10))
def test_a_journal_cut_at_a_random_byte_resumes_to_the_same_numbers(whole, chat, tmp_path, seed):
    listing, results = whole
    shutil.copytree(results.folder, tmp_path / "run")
    for name in ("results.json", "run.json"):
        (tmp_path / "run" / name).unlink()
    journal = tmp_path / "run/journal-0.jsonl"
    data = journal.read_bytes()
    journal.write_bytes(data[: int(np.random.default_rng(seed).integers(len(data)))])
    again = evaluate(chat, str(listing), out=tmp_path / "run", **OPTIONS)
    assert again.body == results.body and texts(tmp_path / "run") == texts(results.folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded torch")
def test_ten_kills_change_nothing(whole, chat, tmp_path):
    """kill -9 at ten random moments, from the first new line on; then to the end."""
    listing, results = whole
    journal, rng = tmp_path / "run/journal-0.jsonl", np.random.default_rng(7)
    total = len(results.folder.joinpath("journal-0.jsonl").read_text().splitlines())
    run = functools.partial(evaluate, chat, str(listing), out=tmp_path / "run", **OPTIONS)
    killed = 0
    for _ in range(10):
        size = len(journal.read_bytes()) if journal.exists() else 0
        process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
        process.start()
        while process.is_alive():
            if journal.exists() and len(journal.read_bytes()) > size:
                time.sleep(rng.uniform(0, 0.1))
                process.kill()
                process.join()
                killed += process.exitcode == -9
            time.sleep(0.001)
    assert killed == 10 and len(journal.read_bytes().splitlines()) < total  # none of them had come to the end
    assert run().body == results.body
    assert texts(tmp_path / "run") == texts(results.folder)


def test_bad_pictures_fail_alone_and_are_tried_again(chat, listing):
    folder = listing.parent
    good = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(good[:60])
    (folder / "4.png").unlink()
    results = evaluate(chat, str(listing), out=folder / "run", **OPTIONS)
    for row in results.rows:
        assert row["failed"] == 4  # two questions about each of the two pictures
        assert row["answered"] == 8 * row["seeds"]
    reasons = {f["reason"]: f["samples"] for f in results.body["failures"]}
    assert any("3.png: corrupt" in r for r in reasons) and any("4.png: no such file" in r for r in reasons)
    assert str(folder) not in json.dumps(results.body)
    (folder / "3.png").write_bytes(good)
    mended = evaluate(chat, str(listing), out=folder / "run", **OPTIONS)
    assert [r["failed"] for r in mended.rows] == [2] * len(mended.rows)
    attempts = {r["attempt"] for r in read_records(folder / "run").values() if "text" in r}
    assert attempts == {1, 2}


def test_one_guilty_sample_does_not_take_its_batch_along(chat, listing, tmp_path, monkeypatch):
    real = Answerer._answer

    def answer(self, row, images, questions):
        if row.label == "pool" and "is the circle red ?" in questions:
            raise ValueError("a bad question")
        return real(self, row, images, questions)

    monkeypatch.setattr(Answerer, "_answer", answer)
    results = evaluate(chat, str(listing), out=tmp_path / "run", **OPTIONS)
    assert results.row("pool", 4)["failed"] == 4 and results.row("pool", 4)["answered"] == 8
    assert results.row("uniform", 4)["failed"] == 0
    assert results.body["failures"][0]["reason"] == "ValueError: a bad question"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("out of memory"), MemoryError()]
)
def test_out_of_memory_halves_the_batch(chat, listing, monkeypatch, error):
    from tokenprune.eval import load_suite

    samples = load_suite(str(listing)).samples[:5]
    images, questions = [s.picture.load() for s in samples], [s.question for s in samples]
    answerer, sizes = Answerer(chat, 3), []
    real = answerer._answer

    def answer(row, images, questions):
        sizes.append(len(images))
        if len(images) > 2:
            raise error
        return real(row, images, questions)

    monkeypatch.setattr(answerer, "_answer", answer)
    answers = answerer.answer(Row("none"), images, questions)
    assert sizes == [5, 3, 2, 1, 2] and len(answers) == 5 and [a.batch for a in answers] == [2, 2, 1, 2, 2]


def test_other_errors_do_not_halve(chat, listing, monkeypatch):
    answerer, calls = Answerer(chat, 3), []

    def answer(*args):
        calls.append(1)
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(answerer, "_answer", answer)
    with pytest.raises(RuntimeError, match="shapes"):
        answerer.answer(Row("none"), [None] * 4, ["q"] * 4)
    assert len(calls) == 1


def test_rows_below_their_floor_or_without_what_they_need(chat, listing, tmp_path, monkeypatch):
    real = run_module._status

    def status(chat, row, *more):
        if row.label == "flashvlm" and row.keep == 4:
            return run_module.Status("floor", "cannot go below", 0.5)
        if row.label == "pool":
            return run_module.Status("unavailable", "no tower attention")
        return real(chat, row, *more)

    monkeypatch.setattr(run_module, "_status", status)
    results = evaluate(chat, str(listing), out=tmp_path / "run", **OPTIONS)
    assert results.row("flashvlm", 4)["state"] == "floor" and "score" not in results.row("flashvlm", 4)
    from tokenprune.eval.report import markdown

    text = markdown(results.body)
    assert "- (floor 50.0 %)" in text and "`pool`: no tower attention" in text


def test_an_unknown_metric_a_bad_batch_and_another_run(chat, listing, tmp_path):
    with pytest.raises(InputError, match="batch 0"):
        evaluate(chat, str(listing), out=tmp_path / "a", **{**OPTIONS, "batch": 0})
    with pytest.raises(TokenPruneError, match="exakt"):
        evaluate(chat, str(listing), out=tmp_path / "a", metric="exakt", **OPTIONS)
    assert not (tmp_path / "a").exists()
    evaluate(chat, str(listing), out=tmp_path / "b", limit=3, **OPTIONS)
    with pytest.raises(InputError, match="holds another run"):
        evaluate(chat, str(listing), out=tmp_path / "b", **OPTIONS)


def test_answers_a_metric_cannot_score_are_named_before_the_run(chat, listing, tmp_path):
    with pytest.raises(InputError, match="sample q00.*annotator"):
        evaluate(chat, str(listing), out=tmp_path / "run", metric="vqa", **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_rescoring_needs_no_model(whole, tmp_path, monkeypatch):
    _, results = whole
    shutil.copytree(results.folder, tmp_path / "run")
    (tmp_path / "run/results.json").unlink()
    monkeypatch.setattr(run_module, "load_chat", lambda *a, **k: pytest.fail("loaded a model"))
    assert score_run(tmp_path / "run").body == results.body
    other = score_run(tmp_path / "run", "anls")
    assert other.body["suite"]["metric"] == "anls"


def test_nothing_answered_is_an_error(chat, listing, tmp_path):
    for picture in listing.parent.glob("*.png"):
        picture.write_bytes(b"broken")
    with pytest.raises(InputError, match="the unpruned model answered no sample.*png"):
        evaluate(chat, str(listing), out=tmp_path / "run", **OPTIONS)


def test_questions_without_answers_are_scored_by_agreement(chat, listing, tmp_path):
    listing.unlink()
    suite = {"name": str(listing.parent), "questions": ["is the circle red ?"]}
    results = evaluate(chat, suite, out=tmp_path / "run", **OPTIONS)
    row = results.row("uniform", 4)
    assert "score" not in row and 0 <= row["agreement"] <= 1
    from tokenprune.eval import write_report

    assert "## Agreement" in write_report(results)[0].read_text()


def test_the_model_is_left_unpatched(whole, chat):
    assert not chat.model._forward_pre_hooks and not chat.model.model.vision_tower._forward_pre_hooks
