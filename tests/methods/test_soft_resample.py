"""Soft resampling against plain Python, and what a window may not do: leave its row, mix separators, average strays."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, clip, image, make_tokens

quick = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def plain(x, coords, members, tau, reach):
    """y of one window, from its member tokens."""
    query = sum(x[j] for j in members) / len(members)
    near = set(members)
    if coords[members[0]][2] >= 0:
        for j, at in enumerate(coords):
            before, after = members[0] - j, j - members[-1]
            near |= {j} if 1 <= before <= reach and at[:3] == coords[members[0]][:3] else set()
            near |= {j} if 1 <= after <= reach and at[:3] == coords[members[-1]][:3] else set()
    alike = {j: float(query @ x[j] / (query.norm() * x[j].norm())) for j in near}
    weights = {j: math.exp((alike[j] - max(alike.values())) / tau) for j in near}
    return sum(w * x[j] for j, w in weights.items()) / sum(weights.values())


@quick
@given(
    st.sampled_from([k for k in LAYOUTS if k != "medium"]),
    st.integers(0, 10**6),
    st.data(),
    st.sampled_from([0.02, 0.05, 1.0]),
    st.sampled_from([0, 1, 2, 5]),
)
def test_agrees_with_a_loop_over_windows(layout, seed, data, tau, reach):
    tokens = make_tokens(LAYOUTS[layout], images=2, seed=seed)
    keep = data.draw(st.integers(1, tokens.shape[1]))
    selection = get_method("soft_resample", tau=tau, reach=reach).select(tokens, keep)
    coords = tokens.coords.tolist()
    for s in range(2):
        for slot in selection.keep[s].nonzero().flatten().tolist():
            members = [i for i in range(len(coords)) if selection.owner[s, i] == slot]
            wanted = plain(tokens.features[s].double(), coords, members, tau, reach)
            torch.testing.assert_close(selection.features[s, slot].double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [image(6, 12), LAYOUTS["newlines"], LAYOUTS["crops"], clip(3, 4, 8)])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_windows_lie_on_one_row_and_are_even(layout, width):
    tokens = make_tokens(layout)
    patches = tokens.coords[:, 2] >= 0
    keep = max(len(tokens.coords) // width, int(patches.sum()) // int(tokens.coords[:, 3].max() + 1))
    owner = get_method("soft_resample").select(tokens, keep).owner[0]
    sizes = {}
    for slot in owner[owner >= 0].unique():
        at = tokens.coords[owner == slot]
        assert len(at[:, :3].unique(dim=0)) == 1, "one row of one frame of one crop"
        x = at[:, 3].sort().values
        assert (x.diff() == 1).all(), "next to each other"
        assert abs(int(tokens.coords[slot, 3]) - float(x.float().mean())) <= 0.5, "in its centre"
        sizes.setdefault(tuple(at[0, :3].tolist()), []).append(len(at))
    assert all(max(row) - min(row) <= 1 for row in sizes.values()), "even along each row"
    number = [len(row) for row in sizes.values()]
    assert max(number) - min(number) <= 1, "rows of one length have as many, give or take one"


def test_a_window_follows_its_majority():
    """Three strokes and one blank: the mean has a quarter of the blank, the resample next to nothing."""
    stroke, blank = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    x = torch.stack([stroke, stroke, blank, stroke])[None]
    tokens = VisualTokens(x, (1, 1, 4))
    soft = get_method("soft_resample", tau=0.05).select(tokens, 1)
    assert soft.features[0, soft.keep[0]][0, 2] < 1e-4
    mean = get_method("soft_resample", tau=1e4).select(tokens, 1)
    torch.testing.assert_close(mean.features[0, mean.keep[0]], x.mean(1), atol=1e-4, rtol=0)


def test_a_wide_temperature_without_reach_is_row_pooling():
    tokens = make_tokens(image(6, 12), images=2)
    selection = get_method("soft_resample", tau=1e4, reach=0).select(tokens, 24)
    pooled = tokens.features.view(2, 24, 3, -1).mean(2)
    torch.testing.assert_close(
        selection.features[selection.keep].view(2, 24, -1), pooled, atol=2e-4, rtol=1e-3
    )


def test_nothing_comes_from_another_row_frame_or_crop():
    """A row of its own direction in each row: no window has any of another one's."""
    for layout in (image(5, 6), clip(2, 3, 6), LAYOUTS["newlines"], LAYOUTS["ragged"]):
        coords = layout.coords
        patches = coords[:, 2] >= 0
        row = (coords[:, 0] * 100 + coords[:, 1] * 10 + coords[:, 2]).masked_fill(~patches, 999)
        kinds = row.unique(return_inverse=True)[1]
        x = torch.nn.functional.one_hot(kinds).float()[None]
        tokens = VisualTokens(x, None, coords=coords)
        selection = get_method("soft_resample", reach=3, tau=1e4).select(tokens, len(coords) // 2)
        kept = selection.keep[0]
        torch.testing.assert_close(selection.features[0, kept], x[0, kept])


def test_separators_are_dropped_or_left_as_they_are():
    tokens = make_tokens(LAYOUTS["newlines"])
    newline = tokens.coords[:, 2] < 0
    tokens.features[:, newline] = 1e6
    few = get_method("soft_resample").select(tokens, 8)
    assert few.features[few.keep].abs().max() < 100 and (few.owner[0, newline] == -1).all()
    full = get_method("soft_resample").select(tokens, tokens.shape[1])
    assert full.keep.all() and torch.equal(full.features[:, newline], tokens.features[:, newline])


def test_a_resample_is_a_mean_and_never_longer_than_its_tokens():
    tokens = make_tokens(LAYOUTS["medium"], images=2)
    selection = get_method("soft_resample").select(tokens, 100)
    assert selection.features.norm(dim=2).max() <= tokens.features.norm(dim=2).max() + 1e-4
    equal = VisualTokens(torch.ones(1, 20, 3), (1, 4, 5))
    torch.testing.assert_close(get_method("soft_resample").select(equal, 7).features, torch.ones(1, 20, 3))
