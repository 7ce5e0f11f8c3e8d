"""random, uniform and pool: what each of them is."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from tokenprune.errors import TokenPruneError
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, Layout, clip, image, make_tokens


def indices(selection) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in selection.keep]


def bare(n: int, images: int = 1, ordinal=None) -> VisualTokens:
    return VisualTokens(torch.zeros(images, n, 2), None, ordinal=ordinal)


def test_random_depends_on_seed_and_ordinal_alone():
    ordinal = torch.tensor([0, 1, 0, 5])
    first = indices(get_method("random").select(bare(200, 4, ordinal), 50))
    assert first[0] == first[2] and first[0] != first[1] and first[1] != first[3]
    assert indices(get_method("random").select(bare(200, 1, ordinal[3:]), 50)) == first[3:]
    assert indices(get_method("random", seed=1).select(bare(200, 4, ordinal), 50))[0] != first[0]
    assert indices(get_method("random", seed=-(2**70) - 1).select(bare(200, 4, ordinal), 50))[0] != first[0]


def test_random_sets_of_one_seed_are_nested():
    tokens = bare(60, 1, torch.tensor([3]))
    sets = [set(indices(get_method("random").select(tokens, k))[0]) for k in range(1, 60, 6)]
    assert all(a < b for a, b in itertools.pairwise(sets))


@pytest.mark.parametrize("vary", ["seed", "ordinal"])
def test_random_is_unbiased(vary):
    draws, n, keep = 200, 40, 10
    if vary == "ordinal":
        kept = get_method("random").select(bare(n, draws, torch.arange(draws)), keep).keep
    else:
        kept = torch.cat([get_method("random", seed=s).select(bare(n), keep).keep for s in range(draws)])
    share = keep / n
    counts, tokens = kept.sum(0).double(), kept.double()
    chi2 = ((counts - draws * share) ** 2 / (draws * share * (1 - share))).sum() * (n - 1) / n
    assert 15 < chi2 < 75  # 39 degrees of freedom, p = 1e-4 on either side
    together = (tokens.T @ tokens)[~torch.eye(n, dtype=torch.bool)] / draws
    expected = share * (keep - 1) / (n - 1)
    assert (together - expected).abs().max() < 5 * (expected / draws) ** 0.5


@pytest.mark.parametrize(
    ("n", "keep", "expected"),
    [
        (10, 1, [4]),
        (10, 2, [0, 9]),
        (10, 4, [0, 3, 6, 9]),
        (9, 4, [0, 2, 5, 8]),
        (3, 3, [0, 1, 2]),
        (1, 1, [0]),
    ],
)
def test_uniform_is_the_floor_of_linspace(n, keep, expected):
    assert indices(get_method("uniform").select(bare(n, 2), keep)) == [expected, expected]


def test_uniform_over_the_grid_takes_every_cell():
    tokens = make_tokens(image(6, 9))
    kept = get_method("uniform", over="grid").select(tokens, 6).keep
    assert indices(get_method("uniform", over="grid").select(tokens, 6)) == [[10, 13, 16, 37, 40, 43]]
    assert torch.equal(kept, get_method("pool").select(tokens, 6).keep)
    with pytest.raises(TokenPruneError, match="over="):
        get_method("uniform", over="line")


@pytest.mark.parametrize(("h", "w", "cell"), [(24, 24, 3), (14, 14, 2), (6, 9, 3), (8, 4, 4)])
def test_pool_is_average_pooling_where_it_divides(h, w, cell):
    tokens = make_tokens(image(h, w), images=2)
    keep = h * w // cell**2
    selection = get_method("pool").select(tokens, keep)
    grid = tokens.features.view(2, h, w, -1).permute(0, 3, 1, 2)
    expected = F.avg_pool2d(grid, cell).flatten(2).transpose(1, 2)
    got = selection.features[selection.keep].view(2, keep, -1)
    torch.testing.assert_close(got, expected)
    place = tokens.coords[selection.keep[0], 2:].view(-1, 2)
    assert (place % cell == (cell - 1) // 2).all(), "each lives in the centre of its cell"


def test_pool_means_equal_a_loop_over_cells():
    tokens = make_tokens(LAYOUTS["ragged"], images=2)
    for keep in (1, 7, 20, tokens.shape[1] - 1):
        selection = get_method("pool").select(tokens, keep)
        for s in range(2):
            for slot in indices(selection)[s]:
                members = (selection.owner[s] == slot).nonzero().flatten()
                mean = tokens.features[s, members].mean(0)
                torch.testing.assert_close(selection.features[s, slot], mean)


def test_pool_drops_separators_that_share_a_cell_and_keeps_everything_at_full_budget():
    tokens = make_tokens(LAYOUTS["newlines"])
    newline = tokens.coords[:, 3] < 0
    few = get_method("pool").select(tokens, 6)
    assert (few.owner[0, newline] == -1).all() and not few.keep[0, newline].any()
    assert (few.owner[0, ~newline] >= 0).all(), "every patch goes somewhere"
    full = get_method("pool").select(tokens, tokens.shape[1])
    assert full.keep.all() and torch.equal(full.features, tokens.features)
    assert torch.equal(full.owner[0], torch.arange(tokens.shape[1]))


@pytest.mark.parametrize("layout", [clip(8, 5, 7), LAYOUTS["crops"], Layout(((0, 0, 3, 3), (1, 0, 9, 4)))])
@pytest.mark.parametrize("share", [0.15, 0.3, 0.5, 0.9])
def test_pool_shares_frames_and_crops_in_proportion_and_never_mixes_them(layout, share):
    tokens = make_tokens(layout)
    n = tokens.shape[1]
    keep = round(share * n)
    selection = get_method("pool").select(tokens, keep)
    block = tokens.coords[:, 0] * 100 + tokens.coords[:, 1]
    assert torch.equal(block[selection.owner[0]], block)
    for one in block.unique():
        ideal = keep * int((block == one).sum()) / n
        assert abs(int(selection.keep[0][block == one].sum()) - ideal) <= 1


@pytest.mark.parametrize(("h", "w"), [(14, 14), (9, 31), (40, 7)])
@pytest.mark.parametrize("keep", [5, 20, 49, 60, 91])
def test_pool_cells_are_compact_and_even(h, w, keep):
    owner = get_method("pool").select(make_tokens(image(h, w)), keep).owner[0].view(h, w)
    side = (h * w / keep) ** 0.5
    for slot in owner.unique():
        y, x = (owner == slot).nonzero().unbind(1)
        assert 0.4 * side**2 - 1 <= len(y) <= 2 * side**2 + 1
        assert y.max() - y.min() + 1 <= 2 * side + 1 and x.max() - x.min() + 1 <= 2.5 * side + 1


def test_uniform_over_frames_keeps_few_whole_frames():
    tokens = make_tokens(LAYOUTS["video"])  # five frames of 3 x 4
    take = lambda keep: indices(get_method("uniform", over="frames").select(tokens, keep))[0]  # noqa: E731
    assert take(24) == [*range(12), *range(24, 36)], "frames 0 and 2 of 5, whole"
    assert take(12) == list(range(12)) and take(60) == list(range(60))
    assert {i // 12 for i in take(13)} == {0, 2}, "one token more than a frame holds needs a second one"
