"""Several runs in one file, what papers publish beside ours, and the configurations that come with the package."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.eval.conftest import write_suite
from tokenprune import list_methods
from tokenprune.cli import app
from tokenprune.errors import InputError, UnknownNameError
from tokenprune.eval import find_config, load_config, load_plan, load_suite, plan_rows
from tokenprune.eval.benchmarks import get_benchmark
from tokenprune.eval.config import with_data
from tokenprune.media import load_image

ROOT = Path(__file__).resolve().parents[2]
PAPER = sorted((ROOT / "configs/paper").glob("*.yaml"))
LISTED = """\
source: arXiv:0000.00000, table 1
model: of-the-paper/model-7b
methods: [flashvlm]
keeps: [0.25, 4]
batch: 6
seeds: 1
max_new_tokens: 2
efficiency: 0
retained: {flashvlm: {4: 92.8}}
runs:
  - suite: {name: suite/questions.jsonl}
    name: first
    published: {none: 64.6, flashvlm: {0.25: 61.5, 4: 60}}
  - suite: {name: suite/questions.jsonl}
    name: second
    batch: 4
"""


def command(*arguments):
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_every_paper_is_planned_with_its_source(path):
    plan, shown = load_plan(path), set()
    for run in plan.runs:
        benchmark = get_benchmark(run.suite["name"])
        known = {*benchmark.options, "name", "frames", "fps", "split", "config"}
        assert set(run.suite) <= known and ("frames" in run.suite) == benchmark.video
        rows = plan_rows(run.methods, run.keeps, run.seeds, benchmark.video, run.home)
        places = {(row.label, row.keep) for row in rows}
        shown |= places
        for value in (run.published or {"rows": []})["rows"]:
            assert (value["label"], value["keep"]) in places, value
            assert 0 < value["value"] <= (2800 if benchmark.name == "mme" else 100)
    told = [t for t in (plan.retained, *(run.published for run in plan.runs)) if t]
    assert told and all(t["source"].startswith("arXiv:") and "/" in t["model"] for t in told)
    assert all((v["label"], v["keep"]) in shown for v in (plan.retained or {"rows": []})["rows"])


def test_every_seed_method_that_answers_questions_has_its_paper():
    methods = {m for path in PAPER for run in load_plan(path).runs for m in map(_method, run.methods)}
    assert {"flashvlm", "entropyprune", "progressive", "fixation"} <= methods


def _method(item):
    return item if isinstance(item, str) else item["name"]


def test_the_quick_look_has_everything():
    plan = load_plan(find_config("quick"))
    assert {run.model for run in plan.runs} == {"tiny-llava", "tiny-qwen"}
    assert {_method(m) for run in plan.runs for m in run.methods} | {"random", "uniform", "pool"} == set(
        list_methods()
    )
    for run in plan.runs:
        assert len(load_suite(run.suite).samples) >= 100 and len(run.keeps) == 2


def test_runs_take_what_they_do_not_say_from_the_rest(tmp_path):
    (tmp_path / "list.yaml").write_text(LISTED)
    plan = load_plan(tmp_path / "list.yaml")
    assert [(r.name, r.batch, r.keeps) for r in plan.runs] == [
        ("first", 6, [0.25, 4]),
        ("second", 4, [0.25, 4]),
    ]
    assert plan.runs[0].published == {
        "source": "arXiv:0000.00000, table 1", "model": "of-the-paper/model-7b", "total": "",
        "rows": [
            {"label": "none", "keep": None, "value": 64.6}, {"label": "flashvlm", "keep": 0.25, "value": 61.5},
            {"label": "flashvlm", "keep": 4, "value": 60},
        ],
    }  # fmt: skip
    with pytest.raises(InputError, match="holds 2 runs.*first, second"):
        load_config(tmp_path / "list.yaml")


@pytest.mark.parametrize(("text", "error", "says"), [
    ("suite: scenes\nruns: []", InputError, "`runs` is a list"),
    ("suite: scenes\nruns: [a]", InputError, "`runs` is a list"),
    ("runs: [{suite: scenes}, {suite: scenes}]", InputError, "two runs are called 'scenes'"),
    ("runs: [{suite: scenes}, {model: x}]", InputError, "at least `suite`"),
    ("runs: [{suite: scenes, kep: 1}]", UnknownNameError, "did you mean keeps"),
    ("suite: scenes\npublished: {flashvlm: high}", InputError, "published values are numbers"),
    ("suite: scenes\nretained: {}", InputError, "published values are numbers"),
])  # fmt: skip
def test_bad_lists(tmp_path, text, error, says):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(error, match=says):
        load_plan(tmp_path / "c.yaml")


def test_ours_stands_beside_theirs(vlm, chat, tmp_path):
    listing = write_suite(tmp_path / "suite")
    entries = [json.loads(line) for line in listing.read_text().splitlines()]
    for entry in entries:  # what the unpruned model says is right
        picture = load_image(listing.parent / entry["image"])
        entry["answer"] = chat.answer(chat.inputs(picture, entry["question"]), 2)
    listing.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (tmp_path / "list.yaml").write_text(LISTED + "  - suite: {name: suite/none.jsonl}\n")
    result = command(tmp_path / "list.yaml", "--model", vlm, "--out", tmp_path / "run")
    assert result.exit_code == 2 and "none: suite" in result.stderr  # and the others ran
    assert "published" in result.stdout and "61.5" in result.stdout
    assert "of of-the-paper/model-7b and not of toy" in result.stdout
    body = json.loads((tmp_path / "run/first/results.json").read_text())
    values = {(r["label"], r["keep"]): r["published"] for r in body["rows"] if r["published"] is not None}
    assert values == {("none", None): 64.6, ("flashvlm", 0.25): 61.5, ("flashvlm", 4): 60}
    report = (tmp_path / "run/first/report.md").read_text()
    assert "## Beside the published values" in report and "| 61.5 |" in report
    assert "Beside" not in (tmp_path / "run/second/report.md").read_text()
    lines = (tmp_path / "run/report.md").read_text().splitlines()
    assert "| method | keep | first | second | retained | published |" in lines
    assert "| none |  | 100.0 / 64.6 | 100.0 | 100.0 |  |" in lines
    assert any(line.startswith("| flashvlm | 4 tokens |") and line.endswith("| 92.8 |") for line in lines)
    again = command(tmp_path / "list.yaml", "--model", vlm, "--out", tmp_path / "run", "--only", "second")
    assert again.exit_code == 0 and (tmp_path / "run/report.md").read_text().splitlines() == lines
    wrong = command(tmp_path / "list.yaml", "--model", vlm, "--out", tmp_path / "run", "--only", "secnd")
    assert wrong.exit_code == 2 and "second" in wrong.stderr


def test_a_folder_of_datasets_takes_the_place_of_the_hub(tmp_path):
    run = load_plan(PAPER[0]).runs[0]
    assert with_data(run, tmp_path).suite == run.suite
    (tmp_path / run.suite["name"]).mkdir()
    assert with_data(run, tmp_path).suite == {**run.suite, "root": str(tmp_path / run.suite["name"])}


def test_a_paper_with_ones_own_model_and_data(vlm, tmp_path):
    """The real file, a tiny model and a tiny dataset with the real columns."""
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    rows = [
        {"question_id": f"{i}", "id": str(i), "question": "is the circle red ?", "answer": ("yes", "no")[i % 2],
         "category": "popular", "image_source": f"{i // 2}", "image": Image.new("RGB", (32, 32), (40 * i, 9, 9))}
        for i in range(4)
    ]  # fmt: skip
    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "data/pope"))
    result = command(
        ROOT / "configs/paper/flashvlm.yaml", "--model", vlm, "--only", "pope", "--data", tmp_path / "data", "--keep",
        "4", "--dtype", "float32", "--efficiency", 0, "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "flashvlm" in result.stdout and "pope.lmms" in result.stdout
