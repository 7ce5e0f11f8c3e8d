"""What the crater tower is trained with: partners of patches, their loss, a phase that learns."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import torch

pytest.importorskip("timm")
from tokenprune.zoo.splits import is_test
from tokenprune.zoo.training import craters, relief
from tokenprune.zoo.vit import GRID


def test_partners_of_the_same_frame_are_the_patches_themselves():
    same = craters.partners((0.4, 0.1, 1.5, 0.3), (0.4, 0.1, 1.5, 0.3), 5)
    np.testing.assert_allclose(same, np.eye(25), atol=1e-5)


def test_partners_where_the_second_view_shows_twice_as_much():
    """The middle of the left upper patch of 4 x 4 at (-0.75, -0.75) is a quarter of the way in a frame of half 2."""
    shares = craters.partners((0, 0, 1, 0), (0, 0, 2, 0), 4)
    assert shares.shape == (16, 16)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    at = np.zeros((4, 4))
    # column of x in the second frame: (-0.75 / 2 + 1) / 2 * 4 - 0.5 = 0.75, and so for the row
    at[0, 0], at[0, 1], at[1, 0], at[1, 1] = 0.25**2, 0.25 * 0.75, 0.75 * 0.25, 0.75**2
    np.testing.assert_allclose(shares[0].reshape(4, 4), at, atol=1e-5)


def test_what_lies_outside_has_no_partner():
    shares = craters.partners((0, 0, 1, 0), (10, 0, 1, 0.2), 4)
    assert shares.sum() == 0


@pytest.mark.parametrize("window", [5, GRID])
def test_pairs_show_the_same_ground_of_the_training_side(window):
    pool = craters.Pool(random.Random(3), window, grounds=2, pairs=6)
    for _ in range(4):
        pixels, shares, ground = pool.batch(4, fresh=2)
    side = window * 8
    assert ground.shape == (8, window**2, relief.NUMBERS)
    assert pixels.shape == (8, 3, side, side) and shares.shape == (2, 4, window**2, window**2)
    assert (shares.sum(-1) > 0.5).float().mean() > 0.3
    assert len(pool._grounds) <= 2 and len(pool._pairs) == 6
    assert not any(is_test(terrain) for terrain, _, _ in pool._grounds)


def test_a_ground_is_drawn_as_far_as_any_view_sees():
    rng = random.Random(5)
    for _ in range(40):
        terrain = craters.draw_terrain(rng, 0.5)
        x, y, half, _ = craters.around(terrain)
        for _, (cx, cy, reach, turn) in craters.draw_pair(rng, terrain, GRID):
            reach *= abs(math.cos(turn)) + abs(math.sin(turn))
            assert max(abs(cx - x), abs(cy - y)) + reach <= half + 1e-9


def test_the_loss_by_hand():
    """Two pairs of two patches; every patch has one partner, or two that share it, or none."""
    a = torch.nn.functional.normalize(
        torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    b = torch.nn.functional.normalize(
        torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    shares = torch.tensor([[[1.0, 0.0], [0.25, 0.75]], [[0.0, 0.0], [0.0, 1.0]]])
    total = 0.0
    for pair in range(2):
        for i in range(2):
            logits = (b.flatten(0, 1) @ a[pair, i] / craters.TEMPERATURE).log_softmax(0).view(2, 2)
            total -= float((shares[pair, i] * logits[pair]).sum())
    found = craters.patch_loss(a, b, shares, 2, torch.Generator().manual_seed(0))
    assert float(found) == pytest.approx(total / float(shares.sum()), rel=1e-5)


def test_the_loss_of_late_interaction_by_hand():
    draw = torch.Generator().manual_seed(2)
    a, b = (torch.nn.functional.normalize(torch.randn(3, 5, 4, generator=draw), dim=-1) for _ in range(2))
    score = torch.tensor([[float(max_of(x, y)) for y in b] for x in a]) / craters.LATE_TEMPERATURE
    wanted = -float(sum(score.log_softmax(1)[i, i] for i in range(3))) / 3
    found = craters.late_loss(a, b, 5, torch.Generator().manual_seed(0))
    assert float(found) == pytest.approx(wanted, rel=1e-4)


def max_of(x, y):
    """The mean over rows of `x` of their best cosine in `y`."""
    return sum(max(row @ other for other in y) for row in x) / len(x)


def test_a_window_is_a_square_of_the_grid():
    cells = craters.draw_cells(random.Random(0), 3, 4)
    assert cells.shape == (3, 16)
    rows, columns = cells // GRID, cells % GRID
    assert ((rows.amax(1) - rows.amin(1)) == 3).all() and ((columns.amax(1) - columns.amin(1)) == 3).all()
    model = craters.make_tower().eval()
    pixels = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = craters.tokens_of(model, pixels)
        cellwise = craters.tokens_of(model, pixels, torch.arange(GRID**2)[None])
    torch.testing.assert_close(whole, cellwise, rtol=1e-4, atol=1e-5)


def test_the_relief_of_a_slope_is_the_same_under_every_patch():
    """Heights that grow by 0.1 of a length to the right: half a patch apart in the fine part, a patch in the coarse."""
    own = (0.0, 0.0, 4.0, 0.0)
    at = (np.arange(400) + 0.5) / 400 * 8 - 4
    ground = np.broadcast_to(0.1 * at, (400, 400)).astype(np.float32)
    found = relief.relief(ground, own, (0.2, -0.1, 1.0, 0.0), 5)
    assert found.shape == (25, relief.NUMBERS)
    fine = np.arcsinh(relief.STEEP * 0.1 * (np.arange(6) - 2.5) / 2)
    coarse = np.arcsinh(relief.STEEP * 0.1 * (np.arange(7) - 3.0))
    wanted = np.concatenate((np.tile(fine, 6), np.tile(coarse, 7)))
    np.testing.assert_allclose(found.numpy(), np.tile(wanted, (25, 1)), atol=2e-3)
    # a camera that is turned by a quarter sees it fall downwards or rise, and as steep
    turned = relief.relief(ground, own, (0.2, -0.1, 1.0, math.pi / 2), 5)[12, :36].view(6, 6)
    np.testing.assert_allclose(turned.abs().numpy(), np.abs(np.tile(fine[:, None], (1, 6))), atol=2e-3)


def test_the_relief_loss_is_one_for_who_knows_nothing():
    wanted = torch.randn(6, 9, relief.NUMBERS, generator=torch.Generator().manual_seed(0))
    head = relief.make_head(4)
    torch.nn.init.zeros_(head.weight)
    head.bias.data.copy_(wanted.mean((0, 1)))
    assert float(relief.relief_loss(head, torch.randn(6, 9, 4), wanted)) == pytest.approx(1, rel=0.03)


def test_neighbours_start_with_positions_that_resemble():
    grid = craters.start_positions(GRID, 96)[0, 1:].view(GRID, GRID, 96)
    near = (grid[5, 5] * grid[5, 6]).sum()
    assert near > (grid[5, 5] * grid[5, 9]).sum() and near > (grid[5, 5] * grid[12, 1]).sum()
    assert grid.flatten(0, 1).unique(dim=0).shape[0] == GRID**2


@pytest.mark.slow
def test_a_phase_runs_goes_on_and_is_exported(tmp_path, monkeypatch):
    from tokenprune.zoo.recipes import Phase, Recipe

    torch.set_num_threads(1)
    steps = {"rate": 1e-3, "batch": 2, "window": 4, "fresh": 1}
    monkeypatch.setattr(craters, "validate", lambda *_, **__: {"map_late": 0.5})
    craters.train(tmp_path, "first", minutes=0.03, **steps)
    craters.train(tmp_path, "second", minutes=0.03, start="first", **steps)
    (tmp_path / "log.jsonl").touch()  # a line comes every 25 steps
    craters.export("crater-vit", Recipe("9", (Phase("second", 0, "craters"),)), tmp_path, tmp_path / "out")
    card = json.loads((tmp_path / "out" / "tokenprune.json").read_text())
    assert card["version"] == "9" and card["scores"] == {"map_late": 0.5}
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 12 * 2**20
