"""The grid of lengths and batches on a layer of no size: shapes, sums and what is left out; never its times."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from tokenprune import get_method
from tokenprune.bench import fixation_grid
from tokenprune.bench.fixation_grid import COLD, MOST_BYTES, Layer, Weights, assemble, measure, plan
from tokenprune.bench.run import bench
from tokenprune.bench.sizes import SIZES, Size, size
from tokenprune.cli.bench import print_bench

SMALL = Size(
    "small-grid", 8, 32, 48, 4, 2, 6, text=8, keep=0.1, kind="fixation grid", lengths=(40, 90), batches=(1, 3),
    vocabulary=64,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _little(monkeypatch):
    monkeypatch.setattr(fixation_grid, "COLD", 2**17)
    monkeypatch.setattr(fixation_grid, "LEAST_SECONDS", 1e-4)


def layer(visual, batch, caches=2, dtype=torch.float32):
    g = torch.Generator().manual_seed(3)
    one = replace(SMALL, dtype=dtype)
    count = caches * 2 * batch * one.kv_heads * (visual + one.text) * (one.hidden // one.heads)
    return Layer(one, visual, batch, torch.randn(count, generator=g).to(dtype), g)


def test_runs_end_to_end(tmp_path):
    seen = []
    result = bench([SMALL], pairs=2, tick=lambda *step: seen.append(step[:2]))
    assert seen == [(i, 4) for i in range(5)] and not result.lines
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [(c["visual"], c["batch"], c["chosen"]) for c in found["cells"]] == [
        (40, 1, 32), (90, 1, 32), (40, 3, 32), (90, 3, 32)
    ]  # fmt: skip
    for cell in found["cells"]:
        assert cell["dense_path"] in cell["trial_ms"] and len(cell["trial_ms"]) == 3
        assert cell["noise"]["pairs"] == 2 and cell["caches"] >= 1 and not cell["note"]
        for name in ("dense_ms", "focal_ms", "sparse_ms", "linears_ms", "head_ms"):
            assert cell[name] >= 0
        assert 0 < cell["dense_share"] < 1
        assert all(list(cell[name]) == ["1", "3", "7"] for name in ("attention", "step", "ideal"))
        assert cell["verdict"] in ("pays", "weights dominate", "choosing costs")
    with (tmp_path / "out.txt").open("w") as file:
        print_bench(result, Console(file=file, width=120))
    text = (tmp_path / "out.txt").read_text()
    assert "attn 1/3/7" in text and result.cells[0].dense_path in text
    assert len([line for line in text.splitlines() if line.split()[:1] in (["40"], ["90"])]) == 4


def test_the_grid_can_be_smaller_and_is_not_run_unasked(monkeypatch):
    real = size("fixation-grid")
    assert real.lengths == (500, 1000, 2000, 4900, 16000) and real.batches == (1, 4, 8, 32)
    assert [s.name for s in SIZES.values() if s.asked] == ["fixation-grid"]
    assert (real.hidden, real.inner, real.heads, real.kv_heads, real.layers) == (3584, 18944, 28, 4, 28)
    result = bench([SMALL], pairs=1, lengths=[24], batches=[2])
    assert [(c.visual, c.batch) for c in result.cells] == [(24, 2)]


def test_what_does_not_fit_is_said(monkeypatch):
    monkeypatch.setattr(fixation_grid, "MOST_BYTES", 2 * 48 * 2 * 8 * 4)
    first, second = measure(replace(SMALL, batches=(1,)), 1)
    assert first.caches == 1 and first.dense_ms is not None
    assert second.dense_ms is None and second.step == {} and "left out" in second.note and not second.verdict


def test_caches_stay_within_their_bytes():
    real = size("fixation-grid")
    for visual in real.lengths:
        for batch in real.batches:
            caches, one = plan(real, visual, batch, MOST_BYTES)
            assert one == 2 * batch * 4 * 128 * 2 * (visual + 300)
            assert caches >= 1 and caches * one <= MOST_BYTES
            read = one * (get_method("fixation", keep=0.05).num_read(visual) + 300) / (visual + 300)
            assert (caches + 1) * one > MOST_BYTES or caches * read >= fixation_grid.COLD
    assert COLD >= 2**28


@pytest.mark.parametrize(("visual", "batch"), [(40, 1), (90, 3)])
def test_every_path_is_dense_attention(visual, batch):
    one = layer(visual, batch)
    for key, value in one.caches:
        wide = [t.repeat_interleave(2, 1) for t in (key, value)]
        wanted = (one.query @ wide[0].transpose(2, 3) * 8**-0.5).softmax(-1) @ wide[1]
        for path in (*one.paths().values(), one.focal):
            assert torch.allclose(path(key, value), wanted, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("visual", "batch"), [(40, 1), (90, 3)])
def test_sparse_equals_masked_dense(visual, batch, dtype):
    one = layer(visual, batch, dtype=dtype)
    one.focal(*one.caches[0])
    chosen = one.gaze.chosen
    assert chosen.sum(1).tolist() == [32] * batch
    seen = torch.ones(batch, visual + 8, dtype=torch.bool)
    seen[:, 4 : 4 + visual] = chosen
    key, value = one.caches[1].float()
    wanted = F.scaled_dot_product_attention(
        one.query.float(), key, value, attn_mask=seen[:, None, None], enable_gqa=True
    )
    out = one.sparse(*one.caches[1]).float()
    assert torch.allclose(out, wanted, atol=1e-5 if dtype == torch.float32 else 3e-2)


def test_steps_are_sums_of_layers():
    costs = {"focal": 1.2, "sparse": 0.25, "linears": 2.0, "head": 2.0}
    found = assemble(SMALL, 90, costs)
    dense = 8 * (1 + 2.0) + 2
    assert found["dense_share"] == pytest.approx(8 / dense)
    for m in (1, 3, 7):
        attention = m * 1.2 + (8 - m) * 0.25
        assert found["attention"][str(m)] == pytest.approx(attention / 8)
        assert found["step"][str(m)] == pytest.approx((attention + 8 * 2.0 + 2) / dense)
        assert found["ideal"][str(m)] == pytest.approx((m * 98 + (8 - m) * 40) / (8 * 98))
    assert found["verdict"] == "pays"
    assert assemble(SMALL, 90, {**costs, "linears": 30.0})["verdict"] == "weights dominate"
    assert assemble(SMALL, 90, {**costs, "sparse": 1.0})["verdict"] == "choosing costs"


def test_weights_are_a_layer_s():
    shapes = {k: tuple(w.shape) for k, w in Weights(SMALL, torch.Generator().manual_seed(0)).of.items()}
    assert shapes == {"qkv": (64, 32), "o": (32, 32), "up": (96, 32), "down": (32, 48), "head": (8, 32)}
