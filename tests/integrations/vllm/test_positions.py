"""Positions of pruned prompts against transformers' own rule for whole ones."""

from __future__ import annotations

import pytest
import torch
import transformers
from packaging.version import Version

from tests.tiny.base import IMAGE, VIDEO
from tests.tiny.models import FAMILIES
from tokenprune.integrations.vllm.positions import COLUMNS, Run, fill, lay_out, local, pack, unpack


def hugging_face(name: str, prompt: list) -> tuple[torch.Tensor, torch.Tensor, list[Run], int]:
    """Ids (L,), positions (3, L) and the decode offset of a prompt, and its runs, all of whole pictures."""
    family = FAMILIES[name]
    row = family.row(prompt, "positions")
    inputs = family.assemble([row])
    model = family.build()
    names = ("input_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts", "mm_token_type_ids")
    known = model.base_model.get_rope_index.__code__.co_varnames
    positions, delta = model.base_model.get_rope_index(
        **{k: v for k, v in inputs.items() if k in names and k in known}
    )
    ids = inputs["input_ids"][0]
    grids = [tuple(map(int, p.split("x"))) for p in prompt if isinstance(p, str)]
    runs = []
    for grid, where in zip(grids, family.visual_positions(inputs)[0]):
        t, h, w = grid if len(grid) == 3 else (1, *grid)
        if name == "qwen3_vl":
            runs += [Run(int(frame[0]), h * w, (1, h, w)) for frame in where.view(t, h * w)]
        else:
            seconds = float(inputs["second_per_grid_ts"][0]) if t > 1 else 1.0
            factor = seconds * model.config.vision_config.tokens_per_second if t > 1 else 1.0
            runs.append(Run(int(where[0]), t * h * w, (t, h, w), factor))
    return ids, positions[-3:, 0], runs, int(delta)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("prompt", [
    [4, "3x4", 3, "5x3", 6],
    [1, "6x2", 2],
    [3, "3x4", 2, "2x4x5", 6],  # t x factor stays below w: beyond that vLLM and transformers count differently
    [2, "2x4x4", 2, "2x5x3", 2, "4x4", 5],
    [9],
])  # fmt: skip
def test_kept_tokens_stand_where_they_stood(name, prompt):
    if Version(transformers.__version__) < Version("5.19") and any(str(p).count("x") == 2 for p in prompt):
        pytest.skip("this transformers is older than vLLM's, and places the frames of clips otherwise")
    ids, whole, runs, offset = hugging_face(name, prompt)
    keep = torch.ones(len(ids), dtype=torch.bool)
    shorter, columns = [], []
    generator = torch.Generator().manual_seed(len(ids))
    for run in runs:
        chosen = torch.rand(run.length, generator=generator) < 0.4
        keep[run.offset : run.offset + run.length] = chosen
        columns.append(pack(local(run.grid, run.factor)[chosen], torch.bfloat16))
        shorter.append((run, int(chosen.sum())))
    moved = [Run(int(keep[: run.offset].sum()), count, run.grid, run.factor) for run, count in shorter]
    laid, delta = lay_out(int(keep.sum()), moved)
    text = ~((ids == IMAGE) | (ids == VIDEO))
    assert laid[:, text[keep]].tolist() == whole[:, text].tolist(), (
        "text is right before any feature is there"
    )
    filled, again = fill(laid, ~text[keep], columns, 0)
    assert filled.tolist() == whole[:, keep].tolist()
    assert delta == again == offset + len(ids) - int(keep.sum())


def chunks(columns: torch.Tensor, where: torch.Tensor, begin: int, end: int) -> list[torch.Tensor]:
    return [columns[(where >= begin) & (where < end)]]


@pytest.mark.parametrize("size", [1, 3, 7, 64])
def test_chunks_in_any_size_and_twice_give_the_same(size):
    runs = [Run(4, 5, (1, 3, 4)), Run(12, 6, (2, 3, 3), 2.0), Run(20, 0, (1, 2, 2)), Run(22, 3, (1, 5, 3))]
    picked = [[0, 3, 4, 7, 11], [0, 2, 8, 9, 14, 17], [], [1, 7, 14]]
    columns = torch.cat([pack(local(r.grid, r.factor)[p], torch.float16) for r, p in zip(runs, picked)])
    visual = torch.zeros(30, dtype=torch.bool)
    for run in runs:
        visual[run.offset : run.offset + run.length] = True
    where = visual.nonzero()[:, 0]
    whole, delta = fill(lay_out(30, runs)[0], visual, [columns], 0)
    positions = lay_out(30, runs)[0]
    for begin in [*range(0, 30, size), *range(0, 30, size)]:  # the second time as after a preemption
        positions, now = fill(positions, visual, chunks(columns, where, begin, begin + size), begin)
        assert now == delta
    assert positions.tolist() == whole.tolist()
    late = fill(lay_out(30, runs)[0], visual, chunks(columns, where, 14, 30), 14)[
        0
    ]  # the rest was in the cache
    assert late[:, 14:].tolist() == whole[:, 14:].tolist()


def test_a_prompt_that_ends_in_a_picture_goes_on_behind_its_corner():
    run = Run(3, 2, (1, 4, 6))
    laid, delta = lay_out(5, [run])
    columns = pack(local(run.grid)[[0, 7]], torch.float32)
    positions, now = fill(laid, torch.tensor([0, 0, 0, 1, 1]).bool(), [columns], 0)
    assert positions.tolist() == [[0, 1, 2, 3, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert now == delta == 3 + 6 - 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_positions_travel_exactly(dtype):
    positions = torch.randint(0, 2**14, (4096, 4), generator=torch.Generator().manual_seed(0))
    columns = pack(positions, dtype)
    assert columns.shape == (4096, COLUMNS) and columns.dtype == dtype
    assert torch.equal(unpack(columns), positions)
    assert not torch.equal(positions.to(torch.bfloat16).long(), positions), (
        "which one number of this type cannot"
    )


def test_frames_of_half_a_second_are_told_apart():
    times = local((4, 1, 1), 0.5 * 4)[:, 0]
    assert times.tolist() == [0, 2, 4, 6]
    assert local((4, 1, 1), 0.25)[:, 0].tolist() == [0, 0, 0, 0], "as long as they are within one position"
