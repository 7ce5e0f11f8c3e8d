"""A run of retrieval: rows against a few lines of numpy, the configuration, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tokenprune.cli import app
from tokenprune.errors import InputError, UnknownNameError
from tokenprune.kernels import unit
from tokenprune.retrieval.config import is_retrieval, load_config, load_tower
from tokenprune.retrieval.evaluate import evaluate
from tokenprune.retrieval.suites import Item, Suite

from ..towers.make import SIDE, pictures, tower

ROOT = Path(__file__).resolve().parents[2]


def toy() -> Suite:
    """Six craters in two pictures each; queries are gallery pictures with noise."""
    images = pictures(12, seed=5)
    noisy = images + 0.6 * pictures(12, seed=6)

    def item(i: int, source: torch.Tensor, asked: bool) -> Item:
        crater = f"c{i // 2}"
        array = ((source[i].permute(1, 2, 0).clamp(-2, 2) + 2) / 4).numpy()
        return Item(f"{crater}-{i}", crater, lambda: array, (crater, "c5") if asked else ())

    gallery = [item(i, images, False) for i in range(12)]
    return Suite("toy", gallery, [item(i, noisy, True) for i in range(0, 10, 2)], {"seed": 5})


def by_hand(scores: np.ndarray, suite: Suite) -> float:
    each = []
    for line, query in zip(scores, suite.queries):
        order = sorted(range(len(line)), key=lambda g: (-line[g], g))
        hits = [suite.gallery[g].crater in query.relevant for g in order]
        each.append(sum(sum(hits[: k + 1]) / (k + 1) for k in range(len(hits)) if hits[k]) / sum(hits))
    return sum(each) / len(each)


def patches(model, items) -> torch.Tensor:
    pixels = torch.stack([torch.from_numpy((np.round(i.load() * 255) / 255 - 0.5) / 0.5) for i in items])
    with torch.no_grad():
        return unit(model.forward_features(pixels.permute(0, 3, 1, 2).float()))


def test_rows_are_those_of_a_few_lines(monkeypatch):
    model, suite = tower("timm"), toy()
    body = evaluate(
        model, suite, counts=(1, 4, "all"), seeds=("attention",), shortlists=(2, 12), staged=(4,), batch=5
    )
    g, q = patches(model, suite.gallery), patches(model, suite.queries)
    rows = {(r["kind"], r["label"], r.get("k"), r.get("shortlist")): r for r in body["rows"]}
    single = by_hand((q[:, 0] @ g[:, 0].T).numpy(), suite)
    assert rows["single", "class", None, None]["map"] == pytest.approx(single, abs=2e-3)
    late = torch.einsum("qid,gjd->qgij", q[:, 1:], g[:, 1:]).amax(3).mean(2).numpy()
    full = rows["all", "attention", 25, None]
    assert full["map"] == pytest.approx(by_hand(late, suite), abs=2e-3)
    assert full["bytes"] == 2 * 25 * 32
    assert (
        {k[2] for k in rows if k[0] == "aggregated"} == {1, 4} == {k[2] for k in rows if k[0] == "selected"}
    )
    whole, some = rows["two-stage", "attention", 4, 12], rows["aggregated", "attention", 4, None]
    assert whole["map"] == some["map"] and whole["of_full"] == 1  # the list holds everything
    assert all(r["low"] <= r["map"] <= r["high"] for r in body["rows"])
    assert "map_query_all" in some and body["protocol"]["first_stage"] in ("class", "mean", "gem")


@pytest.mark.parametrize(("text", "error", "says"), [
    ("kind: retrieval", InputError, "kind: retrieval"),
    ("suite: craters", InputError, "kind: retrieval"),
    ("kind: retrieval\nsuite: craters\nshortlist: [1]", UnknownNameError, "shortlists"),
    ("kind: [", InputError, "cannot read"),
])  # fmt: skip
def test_bad_configurations(tmp_path, text, error, says):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(error, match=says):
        load_config(tmp_path / "c.yaml")


def test_the_bundled_configuration():
    path = ROOT / "configs/suites/craters.yaml"
    run = load_config(path)
    assert is_retrieval(path) and run.name == "craters" and not is_retrieval(path.with_name("scenes.yaml"))
    assert list(run.counts) == [1, 4, 16, 64, "all"] and list(run.shortlists) == [10, 100, 500]


def test_towers_by_name(tmp_path):
    from safetensors.torch import save_model

    timm = pytest.importorskip("timm")
    sizes = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
    model = timm.create_model("vit_tiny_patch16_224", **sizes)
    save_model(model, str(tmp_path / "w.safetensors"))
    found, about = load_tower(
        {"timm": "vit_tiny_patch16_224", **sizes, "checkpoint": "w.safetensors"}, tmp_path
    )
    assert about["name"] == "timm/vit_tiny_patch16_224" and not found.training
    torch.testing.assert_close(found(pictures(1)), model.eval()(pictures(1)))
    for wrong in ("crater", {"timm": "a", "open_clip": "b"}, {"timm": "a", "checkpoint": "w.pt"}):
        with pytest.raises(InputError):
            load_tower(wrong, tmp_path)


def test_the_command_end_to_end(tmp_path):
    pytest.importorskip("timm")
    config = tmp_path / "mine.yaml"
    config.write_text(
        "kind: retrieval\nsuite: {name: craters, identities: 4, asked: 2}\n"
        "tower: {timm: vit_tiny_patch16_224, img_size: 64, embed_dim: 32, depth: 1, num_heads: 2}\n"
        "counts: [4, all]\nseeds: [attention]\nshortlists: [3]\nstaged: [4]\nthreads: 1"
    )
    result = CliRunner().invoke(app, ["eval", str(config), "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "two-stage" in result.stdout and "vit_tiny" in result.stdout
    body = json.loads((tmp_path / "run" / "results.json").read_text())
    assert body["schema"] == "tokenprune.retrieval/1" and body["suite"]["queries"] == 10
    assert {r["kind"] for r in body["rows"]} == {"single", "selected", "aggregated", "all", "two-stage"}
    assert (tmp_path / "run" / "report.md").read_text().count("\n| two-stage") == 1
    assert (tmp_path / "run" / "bytes.png").stat().st_size > 10_000
