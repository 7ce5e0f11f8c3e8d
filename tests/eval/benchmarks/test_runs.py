"""A benchmark through the runner, its own scores through results and report, and the check on the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tests.eval.benchmarks.make import ROWS, save
from tests.eval.benchmarks.test_loading import home_of
from tokenprune.cli import app
from tokenprune.errors import InputError
from tokenprune.eval import evaluate, score_run
from tokenprune.eval.journal import Journal, read_samples, write_samples
from tokenprune.eval.report import markdown

MME = [  # id, right, unpruned, pruned
    ("existence/a.jpg", "Yes", "Yes", "Yes"), ("existence/a.jpg#2", "No", "No", "Yes"),
    ("existence/b.jpg", "Yes", "Yes", "no"), ("existence/b.jpg#2", "No", "Yes", "yes"),
    ("count/c.jpg", "Yes", "No", "No"), ("count/c.jpg#2", "No", "The answer is no", "nobody"),
    ("commonsense_reasoning/d.jpg", "Yes", "yes.", "yes"), ("commonsense_reasoning/d.jpg#2", "No", "no", "no"),
]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A run of MME's worked example by hand, with one pruned row."""
    folder = tmp_path / "run"
    folder.mkdir()
    rows = [
        {"label": label, "key": label, "keep": keep, "seed": None, "methods": [], "state": "ok", "reason": "",
         "floor": None, "baseline": True}
        for label, keep in (("none", None), ("uniform", 0.25))
    ]  # fmt: skip
    body = {
        "schema": "tokenprune.run/1", "name": "mme", "rows": rows, "versions": {}, "machine": {},
        "suite": {"name": "mme", "hash": "0" * 16, "samples": 8, "subset": False, "metric": "mme.lmms",
                  "also": ["mme.strict"], "graded": True},
        "model": {"name": "m", "version": None, "dtype": "float32", "device": "cpu"},
        "protocol": {"decoding": "greedy", "batch": 2, "max_new_tokens": 4, "margin": 0.01, "blind": ""},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(body))
    write_samples(folder, [
        {"id": i, "group": i.split("#")[0], "kind": i.split("/")[0], "question": "q", "answers": [right]}
        for i, right, _, _ in MME
    ])  # fmt: skip
    with Journal(folder, {"hand": 1}) as journal:
        for i, _, *texts in MME:
            for label, text in zip(("none", "uniform"), texts):
                journal.append([{
                    "row": label, "id": i, "attempt": 1, "text": text, "generated": 1, "unfinished": False,
                    "text_tokens": 5, "before": 16, "after": 4, "equivalent": 4, "batch": 2,
                }])  # fmt: skip
    return folder


def test_mme_by_hand(run):
    found = score_run(run)
    none, uniform = found.row("none")["totals"], found.row("uniform", 0.25)["totals"]
    assert {k: v["value"] for k, v in none["mme.lmms"].items()} == {
        "existence": 125, "count": 0, "commonsense_reasoning": 200, "perception": 125, "cognition": 200,
    }  # fmt: skip
    perception = uniform["mme.lmms"]["perception"]
    assert (
        perception["value"] == 25 + 50 and perception["difference"]["value"] == -50
    )  # a half, b none, c half
    assert uniform["mme.strict"]["perception"]["value"] == 25, "nobody is no no"
    assert "difference" not in none["mme.lmms"]["perception"]
    assert perception["low"] <= perception["value"] <= perception["high"]
    assert found.row("uniform", 0.25)["score"]["value"] == 4 / 8
    assert found.row("none")["metrics"]["mme.strict"]["differs"] == 0
    text = markdown(found.body)
    assert "## All answers together, by mme.lmms" in text and "| row | keep | perception |" in text
    assert "| `uniform` | 25 % | 75.0 (" in text
    shown = CliRunner().invoke(app, ["report", str(run)])
    assert shown.exit_code == 0 and "perception of the unpruned answers: 125.0" in shown.stdout


def test_a_benchmark_is_answered_and_scored_twice(chat, tmp_path):
    options = dict(keeps=[0.25], seeds=1, max_new_tokens=2, efficiency=0, batch=4)
    suite = {"name": "pope", "root": str(home_of(tmp_path, "pope"))}
    found = evaluate(chat, suite, out=tmp_path / "run", limit=9, **options)
    assert found.body["suite"]["subset"] and found.body["suite"]["samples"] == 9
    assert found.body["suite"]["metric"] == "pope.lmms" and found.failed == 0
    assert {s["kind"] for s in read_samples(tmp_path / "run")} == {"adversarial", "popular", "random"}
    assert str(tmp_path) not in json.dumps(found.body)
    for row in found.rows:
        assert set(row["totals"]) == {"pope.lmms", "pope.strict"}
        assert {"f1", "yes_ratio", "unparsed", "f1, mean of kinds"} <= set(row["totals"]["pope.lmms"])
    by_hand = score_run(tmp_path / "run", "pope.strict")
    assert by_hand.body["suite"]["metric"] == "pope.strict" and "score" in by_hand.row("uniform", 0.25)
    choice = {"name": "scienceqa", "root": str(home_of(tmp_path, "scienceqa"))}
    asked = evaluate(chat, choice, out=tmp_path / "other", **options)
    assert read_samples(tmp_path / "other")[0]["facts"] == {"options": ["iron", "wood"]} and asked.failed == 0
    with pytest.raises(InputError, match="takes answers of one letter"):
        evaluate(chat, {**suite, "metric": "letter"}, out=tmp_path / "third", **options)


def test_the_check_on_the_command_line(tmp_path):
    root, run = home_of(tmp_path, "pope"), CliRunner().invoke
    good = run(app, ["eval", "--check", "pope", "--root", str(root)])
    assert good.exit_code == 0 and "the first row is as it has to be" in good.stdout
    assert "Is there a 0 in the image?" in good.stdout and "right: no" in good.stdout
    (tmp_path / "mine.yaml").write_text("suite: {name: pope, root: pope}\n")
    assert run(app, ["eval", "--check", str(tmp_path / "mine.yaml")]).exit_code == 0
    (tmp_path / "scenes.yaml").write_text("suite: scenes\n")
    assert run(app, ["eval", "--check", str(tmp_path / "scenes.yaml")]).exit_code == 2
    wrong = save(tmp_path / "wrong", "pope", "test", [{**ROWS["pope"][0], "answer": "maybe"}])
    assert run(app, ["eval", "--check", "pope", "--root", str(wrong)]).exit_code == 2
    assert run(app, ["eval"]).exit_code == 2
