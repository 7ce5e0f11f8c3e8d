"""clip_mean: temporal average pooling where it divides, loops over owners where it does not, and its budgets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenprune.errors import BudgetError
from tokenprune.methods import get_method
from tokenprune.tokens import VisualTokens

from .make import LAYOUTS, clip, make_tokens

quick = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(("t", "h", "w", "window", "cell"), [(8, 4, 6, 4, 1), (8, 4, 6, 4, 2), (16, 6, 6, 16, 2),
                                                             (6, 3, 9, 2, 3), (6, 3, 9, 1, 1)])  # fmt: skip
def test_it_is_average_pooling_where_it_divides(t, h, w, window, cell):
    """One grid per window, pooled afterwards: average pooling of the whole block at once."""
    tokens = make_tokens(clip(t, h, w), images=2)
    keep = t // window * (h // cell) * (w // cell)
    selection = get_method("f16", window=window).select(tokens, keep)
    cube = tokens.features.view(2, t, h, w, -1).permute(0, 4, 1, 2, 3)
    wanted = F.avg_pool3d(cube, (window, cell, cell)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(selection.features[selection.keep].view(2, keep, -1), wanted)
    at = tokens.coords[selection.keep[0], 1]
    assert (at % window == (window - 1) // 2).all(), "a token lives in the middle frame of its window"
    again = torch.randn(2, t * h * w, 3)
    pooled = F.avg_pool3d(again.view(2, t, h, w, 3).permute(0, 4, 1, 2, 3), (window, cell, cell))
    torch.testing.assert_close(
        selection.merge(again)[selection.keep].view(2, keep, 3), pooled.flatten(2).transpose(1, 2)
    )


@quick
@given(data=st.data())
def test_every_mean_is_that_of_its_owner(data):
    t, h, w = (data.draw(st.integers(1, k)) for k in (9, 3, 4))
    layout = clip(t, h, w, data.draw(st.sampled_from(["", "end", "row"])))
    tokens = make_tokens(layout, images=2)
    n, hw = tokens.shape[1], h * w
    keep, window = data.draw(st.integers(1, n)), data.draw(st.integers(1, 9))
    method = get_method("clip_mean", window=window)
    selection = method.select(tokens, keep)
    assert selection.keep.sum(1).tolist() == [keep, keep]
    owner, patch = selection.owner[0], tokens.coords[:, 2] >= 0
    assert (owner[patch] >= 0).all() and torch.equal(selection.owner[0], selection.owner[1])
    for slot in selection.keep[0].nonzero().flatten().tolist():
        mean = tokens.features[:, owner == slot].mean(1)
        torch.testing.assert_close(selection.features[:, slot], mean, rtol=1e-4, atol=1e-5)
    rest = n - t * hw
    windows = method.windows(t, hw, keep - rest)
    assert windows == min(t, max(-(-t // window), -(-(keep - rest) // hw)))
    frame, place = tokens.coords[:, 1], tokens.coords[:, 2] * w + tokens.coords[:, 3]
    for c in range(windows):  # a place of a window never comes apart
        for p in range(hw):
            same = patch & (frame * windows // t == c) & (place == p)
            assert len(set(owner[same].tolist())) == 1


def test_all_of_it_is_the_clip_unchanged():
    tokens = make_tokens(LAYOUTS["video-newline"])
    selection = get_method("clip_mean").select(tokens, tokens.shape[1])
    assert selection.keep.all() and torch.equal(selection.features, tokens.features)


@pytest.mark.parametrize("layout", ["square", "newlines", "ragged", "crops"])
def test_an_image_is_pooled(layout):
    tokens = make_tokens(LAYOUTS[layout])
    for keep in (1, 5, 14):
        a, b = get_method("clip_mean").select(tokens, keep), get_method("pool").select(tokens, keep)
        assert torch.equal(a.keep, b.keep) and torch.equal(a.features, b.features)


def test_behind_an_earlier_cut_it_is_pooled():
    whole = make_tokens(clip(6, 3, 4))
    left = torch.arange(72)[torch.arange(72) % 5 != 2]
    tokens = VisualTokens(whole.features[:, left], None, "video", whole.coords[left])
    a, b = get_method("clip_mean").select(tokens, 9), get_method("pool").select(tokens, 9)
    assert torch.equal(a.keep, b.keep) and torch.equal(a.features, b.features)


def test_windows_of_a_second():
    assert get_method("clip_mean").windows(32, 10, 10) == 8  # of four frames
    assert get_method("clip_mean", fps=16).windows(32, 10, 10) == 2
    assert get_method("clip_mean", fps=16, window=8).windows(32, 10, 10) == 4
    assert get_method("clip_mean", fps=0.4).windows(32, 10, 10) == 32
    assert get_method("clip_mean", fps=16).windows(32, 10, 41) == 5, "a budget for five grids gets five"


@pytest.mark.parametrize(("frames", "count"), [(16, 196), (40, 490), (8, 98), (1, 12)])
def test_tokens_per_second(frames, count):
    """196 tokens a second at 16 frames a second of 729 tokens, however long the clip."""
    method = get_method("clip_mean", fps=16, tokens_per_second=196, tokens_per_frame=729)
    assert method.num_kept(frames * 729) == count
    assert get_method("clip_mean", fps=1, tokens_per_second=999, tokens_per_frame=9).num_kept(36) == 36
    with pytest.raises(BudgetError, match="tokens_per_second needs fps"):
        get_method("clip_mean", tokens_per_second=196)
