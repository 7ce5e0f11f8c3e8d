"""The bench runs end to end on a model of no size; nothing is said about its times."""

import json

import pytest
import torch
from typer.testing import CliRunner

from tokenprune.bench import run as run_module
from tokenprune.bench.result import Line, Verdict
from tokenprune.bench.run import bench
from tokenprune.bench.sizes import IMAGE, SIZES, Size, build, prompt, short_prompt, size, twin
from tokenprune.bench.timer import Ratio, abba, rounds
from tokenprune.cli import app
from tokenprune.errors import UnknownNameError

PREFILL = Size("micro", 2, 32, 48, 4, 2, 4, text=6, goals=(("keep-all", 1.03), ("uniform", 1.12)))
DECODE = Size("micro-decode", 2, 32, 48, 4, 2, 4, text=6, kind="decode", goals=(("step", 1.03), ("ops", 30)))


def test_every_goal_of_the_issue_is_a_goal_here():
    goals = {(s.name, what): goal for s in SIZES.values() for what, goal in s.goals}
    assert goals == {
        ("small-1k", "keep-all"): 1.03,
        ("small-1k", "uniform"): 1.12,
        ("small-1k", "flashvlm"): 1.15,
        ("small-4k", "keep-all"): 1.03,
        ("small-4k", "uniform"): 1.05,
        ("small-4k", "flashvlm"): 1.07,
        ("7b2", "keep-all"): 1.03,
        ("7b2", "uniform"): 1.03,
        ("7b2", "flashvlm"): 1.05,
        ("decode28", "step"): 1.03,
        ("decode28", "ops"): 30,
        ("entropy", "heads x heads"): 0.1,
        ("entropy", "share of q, k, v"): 0.05,
        ("fixation", "batch 1"): 0.502,
        ("fixation", "batch 8"): 0.402,
        ("progressive", "short"): 1.0,
        ("progressive", "long"): 1.5,
        ("progressive", "late"): 1.15,
    }
    assert all(s.rounds >= 20 for s in SIZES.values())


def test_runs_end_to_end():
    seen = []
    result = bench([PREFILL, DECODE], pairs=2, tick=lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1] == 4
    whats = [(line.size, line.what, line.base) for line in result.lines]
    assert ("micro", "keep-all", "unpatched") in whats and ("micro", "flashvlm", "ideal") in whats
    assert ("micro-decode", "step, batch 2 padded", "unpatched") in whats
    ops = [line for line in result.lines if line.ops is not None]
    assert len(ops) == 2 and all(line.base_ops > 0 and not line.note for line in ops)
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert found["schema"] == "tokenprune.bench/1" and found["machine"]["threads"] == 1
    assert found["protocol"]["rounds"] == {"micro": 2, "micro-decode": 2}
    assert all(line["verdict"] in {v.value for v in Verdict} for line in found["lines"])


def test_cli_writes_json(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "SIZES", {"micro": PREFILL})
    out = tmp_path / "deep/bench.json"
    result = CliRunner().invoke(app, ["bench", "--pairs", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "keep-all" in result.stdout and json.loads(out.read_text())["sizes"].keys() == {"micro"}


def test_unknown_size():
    with pytest.raises(UnknownNameError, match="small-1k"):
        size("small-1")
    result = CliRunner().invoke(app, ["bench", "--only", "huge"])
    assert result.exit_code == 2 and "no bench size named 'huge'" in result.stderr


def test_prompts_are_comparable():
    long, short = prompt(PREFILL), short_prompt(PREFILL)
    assert long["input_ids"].shape[1] == 22 and (long["input_ids"] == IMAGE).sum() == 16
    assert short["input_ids"].shape[1] == 6 + 4 and not (short["input_ids"] == IMAGE).any()
    padded = prompt(PREFILL, batch=2, padding=3)
    assert padded["attention_mask"].sum(1).tolist() == [22, 25]
    assert ((padded["input_ids"] == IMAGE).sum(1) == 16).all()


def test_twin_shares_weights_and_nothing_else():
    model = build(PREFILL)
    other = twin(model)
    assert all(a is b for a, b in zip(model.parameters(), other.parameters(), strict=True))
    other.register_forward_pre_hook(lambda *_: pytest.fail("a hook reached the twin"))
    model(**prompt(PREFILL))
    assert build(PREFILL).dtype == torch.float32 == torch.get_default_dtype()


def test_orders():
    calls = []
    a, b = abba(lambda: calls.append("a"), lambda: calls.append("b"), 2)
    assert "".join(calls) == "abbaabba" and len(a) == len(b) == 4
    variants = {name: (lambda name=name: calls.append(name)) for name in "xyz"}
    calls.clear()
    taken = list(rounds(variants, 20, seed=3))
    assert all(set(t) == set("xyz") for t in taken)
    turns = {"".join(calls[i : i + 3]) for i in range(0, 60, 3)}
    assert len(turns) > 3 and all(sorted(t) == list("xyz") for t in turns)


def test_ratio_and_verdict():
    ratio = Ratio.of([2.0, 3.0, 9.0], [1.0, 2.0, 3.0])
    assert ratio.median == 2.0 and ratio.minimum == 2.0 and ratio.pairs == 3 and ratio.seconds == 3.0
    assert Verdict.of(ratio, 2.0) is Verdict.MET and Verdict.of(ratio, 1.9) is Verdict.MISSED
    assert Verdict.of(ratio, None) is Verdict.INFO
    noisy = Ratio.of([1.0, 1.2, 1.2], [1.0, 1.0, 1.0])
    assert Verdict.of(noisy, 1.1) is Verdict.MINIMUM_ONLY
    line = Line.judged("s", "step, batch 1", "unpatched", noisy, {"step": 1.3}, goal="step")
    assert line.goal == 1.3 and line.verdict is Verdict.MET
