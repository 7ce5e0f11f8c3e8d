"""What the roofline counts; nothing of times."""

from __future__ import annotations

import json

import pytest
import torch

from tokenprune.bench import roofline
from tokenprune.bench.plots import roofline_figure
from tokenprune.bench.result import KernelRow
from tokenprune.bench.run import bench_kernels
from tokenprune.bench.tables import of_kernels


@pytest.fixture(scope="module")
def result():
    return bench_kernels(pairs=1, scale=0.02)


def test_every_kernel_that_a_bench_can_call_is_measured(result):
    names = [row.kernel for row in result.kernels]
    assert len(names) == len(set(names)) == 15 and {"column_attention", "best_match", "sparse_step"} <= set(
        names
    )
    assert all(row.seconds > 0 and row.bytes > 0 and row.share > 0 for row in result.kernels)
    assert set(result.ceilings) == {"bytes", "float32"} and min(result.ceilings.values()) > 0
    json.dumps(result.to_dict(), allow_nan=False)


def test_bytes_and_flops_are_those_of_the_shapes(result):
    rows = {row.kernel: row for row in result.kernels}
    page, heads, shared, width = 98, 28, 4, 128
    dense = rows["dense_step"]
    assert dense.flops == 2 * 2 * heads * page * width  # scores, and their product with the values
    assert dense.bytes == 4 * (heads * width + 2 * shared * page * width + heads * width + heads * page)
    sparse = rows["sparse_step"]
    chosen = 16
    assert sparse.flops == 2 * 2 * heads * chosen * width
    indices = 8 * shared * chosen
    assert sparse.bytes == 4 * (heads * width + 2 * shared * chosen * width + heads * width) + indices
    match = rows["best_match"]
    assert match.flops == 2 * 23 * 23 * 1024 and match.bytes == 4 * 2 * 23 * 1024 + (4 + 8) * 23


def test_the_nearer_ceiling_bounds():
    row = KernelRow(
        "k", "", "float32", "torch", seconds=2.0, bytes=10, flops=100, least_seconds=0.5, bound="flops"
    )
    assert row.share == 0.25
    table = of_kernels([row], {"bytes": 1e9, "float32": 2e9})
    assert table.rows[0][-1] == "25.0%" and "2 GFLOP float32/s" in table.caption


def test_both_ceilings_are_drawn(result):
    figure = roofline_figure(result.kernels, {**result.ceilings, "bfloat16": 2 * result.ceilings["float32"]})
    (axes,) = figure.axes
    roofs = [line for line in axes.lines if line.get_marker() == "None"]
    assert len(roofs) == 2 and len(axes.lines) == 2 + sum(row.flops > 0 for row in result.kernels)
    assert roofline_figure([], {}) is None


def test_half_precision_has_its_own_ceiling():
    rows, ceilings = roofline.measure(
        1, dtype=torch.bfloat16, scale=0.02, only=["received_attention", "word_pool"]
    )
    assert [row.dtype for row in rows] == ["bfloat16", "float32"] and set(ceilings) == {
        "bytes",
        "bfloat16",
        "float32",
    }
