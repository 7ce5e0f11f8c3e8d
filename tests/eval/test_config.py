from pathlib import Path

import pytest
from typer.testing import CliRunner

from tokenprune.cli import app
from tokenprune.errors import InputError, UnknownNameError
from tokenprune.eval import evaluate, find_config, load_config, load_plan, plan_rows
from tokenprune.eval.efficiency import read_costs
from tokenprune.eval.report import markdown
from tokenprune.retrieval.config import is_retrieval

ROOT = Path(__file__).resolve().parents[2]


BUNDLED = [p for p in sorted((ROOT / "configs/suites").rglob("*.yaml")) if not is_retrieval(p)]


@pytest.mark.parametrize("path", BUNDLED, ids=lambda p: p.stem)
def test_every_bundled_configuration_can_be_planned(path):
    plan = load_plan(path)
    assert plan.name == path.stem
    for run in plan.runs:
        assert plan_rows(run.methods, run.keeps, run.seeds, home=run.home)


def test_a_configuration_is_found_by_its_name():
    assert find_config("scenes") == ROOT / "configs/suites/scenes.yaml"
    with pytest.raises(InputError, match="no bundled configuration.*scenes"):
        find_config("scene")


@pytest.mark.parametrize(("text", "error", "says"), [
    ("- a", InputError, "mapping with at least `suite`"),
    ("model: x", InputError, "mapping with at least `suite`"),
    ("suite: scenes\nkeps: [0.5]", UnknownNameError, "did you mean keeps"),
    ("suite: [", InputError, "cannot read"),
    ("suite: !!python/object:os.system {}", InputError, "cannot read"),
])  # fmt: skip
def test_bad_configurations(tmp_path, text, error, says):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(error, match=says):
        load_config(tmp_path / "c.yaml")
    with pytest.raises(InputError):
        load_config(tmp_path / "none.yaml")


def test_the_command_end_to_end(vlm, listing, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(
        "suite: suite/questions.jsonl\nmethods: [flashvlm]\nkeeps: [0.25]\n"
        "batch: 6\nseeds: 1\nmax_new_tokens: 2"
    )
    command = ["eval", str(config), "--model", str(vlm), "--out", str(tmp_path / "run"), "--efficiency", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "flashvlm" in result.stdout and "report.md" in result.stdout
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {
        "journal-0.jsonl", "samples.jsonl", "run.json", "results.json", "efficiency.json", "report.md", "rows.csv",
        "tokens.png", "prefill.png",
    }  # fmt: skip
    (listing.parent / "2.png").unlink()
    result = CliRunner().invoke(app, [*command[:-3], str(tmp_path / "other"), "--efficiency", "0"])
    assert result.exit_code == 1 and "2.png: no such file" in result.stderr


def test_the_costs_of_a_run(chat, listing, tmp_path):
    options = dict(methods=["flashvlm"], keeps=[0.25], batch=6, seeds=2, max_new_tokens=2, efficiency=1)
    results = evaluate(chat, str(listing), out=tmp_path / "run", **options)
    costs = {(c["label"], c["keep"]): c for c in results.body["efficiency"]["rows"]}
    assert set(costs) == {("none", None), ("blind", None)} | {
        (m, 0.25) for m in ("random", "uniform", "pool", "resize", "flashvlm")
    }
    none, pruned, resized = costs["none", None], costs["uniform", 0.25], costs["resize", 0.25]
    assert none["prefill"]["pairs"] == 6 and none["scoring"] == 0 < costs["flashvlm", 0.25]["scoring"]
    assert costs["blind", None]["vision"] == 0 < pruned["vision"] < pruned["prefill"]["seconds"]
    assert resized["kv_bytes"] == pruned["kv_bytes"] < none["kv_bytes"]
    assert pruned["flops"] == pytest.approx(resized["flops"]) and pruned["flops"] < none["flops"]
    # 12 of 16 visual tokens fewer, in 3 layers: keys and values of 2 heads of 8, float32
    assert none["kv_bytes"] - pruned["kv_bytes"] == 12 * 3 * 2 * 2 * 8 * 4
    assert all(c["peak_bytes"] > 0 for c in costs.values())
    assert "## Cost" in markdown(results.body)
    first = (tmp_path / "run/efficiency.json").read_text()
    evaluate(chat, str(listing), out=tmp_path / "run", **options)
    assert (tmp_path / "run/efficiency.json").read_text() == first  # measured once
    evaluate(chat, str(listing), out=tmp_path / "run", **{**options, "keeps": [0.5]})
    assert {c["keep"] for c in read_costs(tmp_path / "run")["rows"]} == {None, 0.5}  # never mixed
