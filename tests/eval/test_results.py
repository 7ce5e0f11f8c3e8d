"""Scoring of a run folder written by hand, where every figure can be checked on paper."""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from tokenprune.cli import app
from tokenprune.errors import InputError
from tokenprune.eval import compare_runs, score_run
from tokenprune.eval.journal import Journal, write_samples
from tokenprune.eval.report import interval_text, keep_text, markdown, to_csv, write_report

#         none  uniform  random: two draws
TABLE = {
    "a1": ("red", "red", "red", "blue"),
    "a2": ("red", "blue", "Red.", "red"),
    "b1": ("two", "three", "two", "three"),
    "b2": ("one", "two", "one", ""),
}
ANSWERS = {"a1": "red", "a2": "red", "b1": "two", "b2": "two"}
KEYS = ("none", "uniform keep=0.25", "random keep=0.25 seed=0", "random keep=0.25 seed=1")


def write_run(folder, table=TABLE, skip=()):
    folder.mkdir(parents=True)
    rows = [
        {"label": k.split()[0], "key": k, "keep": None if k == "none" else 0.25, "seed": None, "methods": [],
         "state": "ok", "reason": "", "floor": None, "baseline": True}
        for k in KEYS
    ]  # fmt: skip
    rows.append(
        {
            **rows[1],
            "label": "fastv",
            "key": "fastv keep=0.056",
            "keep": 0.056,
            "state": "floor",
            "floor": 0.125,
        }
    )
    run = {
        "schema": "tokenprune.run/1", "name": "hand",
        "suite": {"name": "hand", "hash": "0" * 16, "samples": 4, "subset": False, "metric": "exact", "graded": True},
        "model": {"name": "m", "version": None, "dtype": "float32", "device": "cpu"},
        "protocol": {"decoding": "greedy", "batch": 2, "max_new_tokens": 4, "margin": 0.01, "blind": ""},
        "versions": {}, "machine": {}, "rows": rows,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    write_samples(folder, [
        {"id": i, "group": i[0], "kind": "colour" if i[0] == "a" else "count", "question": "q", "answers": [ANSWERS[i]]}
        for i in table
    ])  # fmt: skip
    with Journal(folder, {"hand": 1}) as journal:
        for i, texts in table.items():
            for key, text in zip(KEYS, texts):
                if (key, i) in skip:
                    journal.append([{"row": key, "id": i, "attempt": 1, "error": "broken"}])
                    continue
                journal.append([{
                    "row": key, "id": i, "attempt": 1, "text": text, "generated": 1, "unfinished": text == "three",
                    "text_tokens": 5, "before": 16, "after": 16 if key == "none" else 4,
                    "equivalent": 16 if key == "none" else 4, "batch": 2,
                }])  # fmt: skip
    return folder


def test_every_figure_by_hand(tmp_path):
    found = score_run(write_run(tmp_path / "run"))
    none, uniform, drawn = (found.row(k.split()[0], None if k == "none" else 0.25) for k in KEYS[:3])
    assert none["score"]["value"] == 0.75 and none["answered"] == 4
    assert uniform["score"]["value"] == 0.5  # a1 and b2
    assert (uniform["lost"], uniform["gained"]) == (2, 1) and uniform["difference"]["value"] == -0.25
    assert uniform["retained"]["value"] == pytest.approx(2 / 3)
    assert uniform["p"] == 1.0 and uniform["test"] == "McNemar, exact"  # 2 against 1
    assert uniform["agreement"] == 0.25
    assert uniform["verdict"] == "undecided"
    assert uniform["tokens"] == {"before": 16, "after": 4, "equivalent": 4, "kept": 4}
    assert uniform["degenerate"]["unfinished"] == 0.25
    assert {k: v["value"] for k, v in uniform["kinds"].items()} == {"colour": 0.5, "count": 0.5}
    # two draws: a1 1/2, a2 1 (case and full stop do not count), b1 1/2, b2 0
    assert drawn["seeds"] == 2 and drawn["answered"] == 8 and drawn["score"]["value"] == 0.5
    assert drawn["agreement"] == pytest.approx((4 + 1) / 8)
    assert drawn["degenerate"]["empty"] == 1 / 8 and drawn["test"] == "paired t"
    assert uniform["p_holm"] == 1.0
    assert found.failed == 0


def test_the_interval_resamples_pictures(tmp_path):
    """Two pictures: a (difference -1/2) and b (0); their bootstrap has three outcomes."""
    uniform = score_run(write_run(tmp_path / "run")).row("uniform", 0.25)
    assert (uniform["difference"]["low"], uniform["difference"]["high"]) == (-0.5, 0.0)


def test_failures_are_left_out_of_both_sides(tmp_path):
    folder = write_run(tmp_path / "run", skip={("uniform keep=0.25", "a2"), ("none", "b1")})
    found = score_run(folder)
    uniform = found.row("uniform", 0.25)
    assert uniform["failed"] == 1 and uniform["answered"] == 3
    assert uniform["score"]["value"] == pytest.approx(2 / 3)  # a1, b1 wrong, b2
    assert uniform["difference"]["value"] == 0.5  # a1 and b2 only: none has 1 of 2, uniform 2 of 2
    assert found.body["failures"] == [{"reason": "broken", "samples": ["a2", "b1"], "rows": 1}]


def test_another_metric(tmp_path):
    folder = write_run(tmp_path / "run")
    assert score_run(folder, "contains").row("random", 0.25)["score"]["value"] == 0.5
    assert score_run(folder, "edit").row("uniform", 0.25)["test"] == "paired t"
    assert json.loads((folder / "results.json").read_text())["suite"]["metric"] == "edit"


def test_report_and_csv_say_the_same(tmp_path):
    found = score_run(write_run(tmp_path / "run"))
    text = markdown(found.body)
    assert "| `uniform` | 50.0 (50.0 to 50.0) |" in text and "- (floor 12.5 %)" in text
    assert "`none`: **75.0 (50.0 to 100.0)**, 4 answers." in text
    lines = list(csv.DictReader(io.StringIO(to_csv(found.body))))
    assert [line["label"] for line in lines] == ["none", "uniform", "random", "fastv"]
    assert float(lines[1]["difference"]) == -0.25 and lines[3]["floor"] == "0.125" and lines[3]["score"] == ""
    written = write_report(found)
    assert [p.name for p in written][:2] == ["report.md", "rows.csv"] and all(
        p.stat().st_size > 0 for p in written
    )
    assert "tokens.png" in {p.name for p in written}


def test_words():
    assert [keep_text(k) for k in (None, 0.111, 0.5, 1, 64)] == ["", "11.1 %", "50 %", "1 token", "64 tokens"]
    assert interval_text({"value": -0.125, "low": -0.3, "high": 0.05}, signed=True) == "-12.5 (-30.0 to +5.0)"
    assert interval_text({"value": 0.5, "low": 0.25, "high": None}) == "50.0 (25.0 to ∞)"
    assert interval_text(None) == ""


def test_diff_pairs_two_runs(tmp_path):
    one = write_run(tmp_path / "one")
    two = write_run(
        tmp_path / "two", {k: (v[0], "two" if k == "b1" else v[1], *v[2:]) for k, v in TABLE.items()}
    )
    by_key = {d.a: d for d in compare_runs(one, two)}
    assert set(by_key) == set(KEYS)
    changed = by_key["uniform keep=0.25"]
    assert (changed.score_a, changed.score_b, changed.gained, changed.lost) == (0.5, 0.75, 1, 0)
    assert changed.agreement == 0.75 and changed.p == 1.0
    assert by_key["none"].difference.value == 0 and by_key["none"].verdict == "non-inferior"
    across = compare_runs(one, one, rows=(KEYS[0], KEYS[1]))[0]
    assert across.difference.value == -0.25
    with pytest.raises(InputError, match="no row 'pool'.*uniform"):
        compare_runs(one, two, rows=("none", "pool"))


def test_diff_refuses_another_suite(tmp_path):
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two")
    run = json.loads((two / "run.json").read_text())
    run["suite"]["hash"] = "1" * 16
    (two / "run.json").write_text(json.dumps(run))
    with pytest.raises(InputError, match="nothing to pair"):
        compare_runs(one, two)


def test_the_commands(tmp_path):
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", skip={("uniform keep=0.25", "a2")})
    run = CliRunner().invoke
    shown = run(app, ["report", str(one)])
    assert shown.exit_code == 0 and "uniform" in shown.stdout and "- (floor 12.5 %)" in shown.stdout
    assert run(app, ["rescore", str(one), "--metric", "anls"]).exit_code == 0
    assert run(app, ["rescore", str(two)]).exit_code == 1  # one sample failed
    assert run(app, ["rescore", str(two), "--max-failures", "1"]).exit_code == 0
    compared = run(app, ["diff", str(one), str(two), "--json"])
    assert compared.exit_code == 0 and {d["samples"] for d in json.loads(compared.stdout)} == {3, 4}
    assert run(app, ["diff", str(one), str(two)]).exit_code == 0
    assert run(app, ["diff", str(one), str(two), "--row", "none"]).exit_code == 2
    assert run(app, ["report", str(tmp_path)]).exit_code == 2
