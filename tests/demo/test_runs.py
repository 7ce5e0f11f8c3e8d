"""Run folders are read as they lie there, and nothing beside them."""

import json
import os
import shutil

import pytest
from PIL import Image

from tests.eval.conftest import write_suite
from tests.eval.test_results import write_run
from tests.vlm_folder import save_vlm
from tokenprune.demo.runs import ALL, FAILED, FLIPS, GAINED, LOST, WORDS, Runs
from tokenprune.errors import InputError
from tokenprune.eval import evaluate, score_run

A, B = "none", "uniform keep=0.25"


@pytest.fixture
def home(tmp_path):
    write_run(tmp_path / "runs" / "deep" / "hand", skip={("random keep=0.25 seed=0", "b2")})
    return tmp_path


def test_runs_are_found_and_read_without_a_trace(home):
    runs = Runs(home / "runs")
    assert runs.names() == ["deep/hand"]
    before = sorted(p.name for p in (home / "runs/deep/hand").iterdir())
    run = runs.open("deep/hand")
    assert sorted(p.name for p in (home / "runs/deep/hand").iterdir()) == before  # no results.json appeared
    assert run.results.row("uniform", 0.25)["score"]["value"] == pytest.approx(0.5)
    assert run.results.body["rows"] == score_run(home / "runs/deep/hand").body["rows"]
    assert runs.open("deep/hand").results.body["rows"] == run.results.body["rows"]  # now from the file
    assert list(run.rows) == [
        "none",
        "uniform keep=0.25",
        "random keep=0.25 seed=0",
        "random keep=0.25 seed=1",
    ]


def test_flips_by_what_became_of_the_answer(home):
    run = Runs(home / "runs").open("deep/hand")

    def ids(show, a=A, b=B, kind=None):
        return [(p.sample["id"], p.change) for p in run.pairs(a, b, show, kind)]

    assert ids(FLIPS) == [("a2", LOST), ("b1", LOST), ("b2", GAINED)]
    assert ids(LOST) == [("a2", LOST), ("b1", LOST)] and ids(GAINED) == [("b2", GAINED)]
    assert ids(FLIPS, kind="count") == [("b1", LOST), ("b2", GAINED)]
    assert ids(WORDS) == [] and ids(WORDS, b="random keep=0.25 seed=0") == [("a2", WORDS)]
    assert ids(FAILED, b="random keep=0.25 seed=0") == [("b2", FAILED)]
    assert len(ids(ALL)) == 4 and ids(FLIPS, A, A) == []


def test_nothing_outside_the_chosen_folder_is_read(home):
    outside = home / "outside"
    shutil.copytree(home / "runs" / "deep" / "hand", outside / "secret")
    os.symlink(outside / "secret", home / "runs" / "link")
    runs = Runs(home / "runs")
    assert runs.names() == ["deep/hand"]
    for name in ("../outside/secret", "link", str(outside / "secret"), "", "deep", None):
        with pytest.raises(InputError, match="no run"):
            runs.open(name)
    assert Runs(None).names() == [] == Runs(home / "nowhere").names()


def test_pictures_come_from_their_own_folder_only(home):
    images = home / "images"
    images.mkdir()
    Image.new("RGB", (8, 8), "red").save(images / "a.png")
    Image.new("RGB", (8, 8), "red").save(home / "b.png")
    os.symlink(home / "b.png", images / "link.png")
    runs = Runs(home / "runs", images)
    run = runs.open("deep/hand")
    assert runs.medium(run, {"picture": "a.png"}).size == (8, 8)
    for name in ("../b.png", str(home / "b.png"), "link.png"):
        with pytest.raises(InputError, match="outside"):
            runs.medium(run, {"picture": name})
    with pytest.raises(InputError, match="no such file"):
        runs.medium(run, {"picture": "c.png"})
    with pytest.raises(InputError, match="--images"):
        Runs(home / "runs").medium(run, {"picture": "a.png"})
    with pytest.raises(InputError, match="no such folder"):
        Runs(None, home / "nowhere")


def test_damaged_runs_are_a_message(home):
    folder = home / "runs" / "deep" / "hand"
    (folder / "run.json").write_text("{}")
    with pytest.raises(InputError, match="damaged"):
        Runs(home / "runs").open("deep/hand")
    (folder / "run.json").write_text("not JSON")
    with pytest.raises(InputError) as caught:
        Runs(home / "runs").open("deep/hand")
    assert str(home) not in str(caught.value)


def test_drawn_samples_are_drawn_again(home):
    from tokenprune.eval import load_suite

    folder = home / "runs" / "deep" / "hand"
    facts = json.loads((folder / "run.json").read_text())
    facts["suite"] |= {"name": "scenes", "split": "test", "n": 9, "seed": 0}
    (folder / "run.json").write_text(json.dumps(facts))
    sample = load_suite({"name": "scenes", "n": 9}).samples[4]
    runs = Runs(home / "runs")
    run = runs.open("deep/hand")
    assert runs.medium(run, {"id": sample.id}).tobytes() == sample.picture.load().tobytes()
    with pytest.raises(InputError, match="no such sample"):
        runs.medium(run, {"id": "nothing"})


@pytest.mark.slow
def test_rows_of_a_real_run_can_be_asked_again(tmp_path):
    model = save_vlm(tmp_path / "toy")
    write_suite(tmp_path / "suite", n=4)
    evaluate(
        str(model), {"name": str(tmp_path / "suite"), "max_new_tokens": 3},
        [{"name": "visionzip", "beta": 0.25, "label": "mine"}, {"chain": ["uniform", "pool"], "label": "both"}],
        [0.5], out=tmp_path / "runs" / "one", efficiency=0, batch=1,
    )  # fmt: skip
    run = Runs(tmp_path / "runs").open("one")
    for key, facts in run.rows.items():
        row = run.row(key)
        assert row.key == key and row.label == facts["label"]
        assert len(row.reducers()) == len(facts["methods"])
