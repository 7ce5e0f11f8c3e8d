"""Frames of every layout against reading tokens one after the other."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from tokenprune.kernels.framing import coords_of, frame_before, frames_of
from tokenprune.kernels.segments import segment_mean
from tokenprune.tokens import VisualTokens

from ..methods.make import LAYOUTS, make_tokens


def by_hand(tokens: VisualTokens) -> list[int]:
    """Frame of each token, read one after the other."""
    out, now = [], 0
    for _, t, y, _ in coords_of(tokens).tolist():
        now = now if y < 0 else t
        out.append(now)
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_of_every_layout(layout):
    tokens = make_tokens(LAYOUTS[layout])
    frames, expected = frames_of(tokens), by_hand(tokens)
    assert frames.of.tolist() == expected and frames.count == max(expected) + 1
    assert frames.size.tolist() == [expected.count(t) for t in range(frames.count)]
    assert frames.widest >= max(frames.size.tolist()) and frames.smallest <= min(frames.size.tolist())
    table, place = frames.table()
    for t in range(frames.count):
        own = [i for i, frame in enumerate(expected) if frame == t]
        assert table[t].tolist() == own + [-1] * (frames.widest - len(own))
    assert table.flatten()[place].tolist() == list(range(len(expected)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_side_by_side(layout):
    tokens = make_tokens(LAYOUTS[layout], images=2)
    frames, of = frames_of(tokens), torch.tensor(by_hand(tokens))
    sheet, patch = frames.sheet(), coords_of(tokens)[:, 2] >= 0
    laid, score = sheet.lay(tokens.features), tokens.saliency.round(decimals=1)
    plain = segment_mean(tokens.features, frames.of, frames.count, frames.patch)
    torch.testing.assert_close(sheet.means(laid), plain)
    assert torch.equal(sheet.take_up(sheet.lay(score)), score)
    quota = torch.stack([(frames.size + 1) // 2, frames.size - 1])
    got = sheet.best(sheet.lay(score), quota)
    for s in range(2):
        for t in range(frames.count):
            own = (of == t).nonzero().flatten().tolist()
            wanted = sorted(own, key=lambda i: (-float(score[s, i]), i))[: int(quota[s, t])]
            assert [i for i in own if got[s, i]] == sorted(wanted)
            torch.testing.assert_close(sheet.means(laid)[s, t], tokens.features[s, (of == t) & patch].mean(0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ranks_with_some_behind_and_the_least_of_all(layout):
    tokens = make_tokens(LAYOUTS[layout], images=2)
    frames, of = frames_of(tokens), by_hand(tokens)
    sheet, score = frames.sheet(), tokens.saliency.round(decimals=1)
    behind = torch.rand(score.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    rank = sheet.take_up(sheet.ranks(sheet.lay(score), last=sheet.lay(behind)))
    least = sheet.least(sheet.lay(score), (len(of) + 1) // 2)
    for s in range(2):
        for t in range(frames.count):
            own = sorted(
                (i for i in range(len(of)) if of[i] == t),
                key=lambda i: (bool(behind[s, i]), -float(score[s, i]), i),
            )
            assert rank[s, own].tolist() == list(range(len(own)))
        wanted = sorted(range(len(of)), key=lambda i: (float(score[s, i]), i))[: (len(of) + 1) // 2]
        assert least[s].nonzero().flatten().tolist() == sorted(wanted)


def test_frames_of_a_clip_that_was_cut_before():
    tokens = make_tokens(LAYOUTS["video"], images=2)
    left = torch.tensor([3, 5, 14, 20, 37, 38, 39])
    cut = VisualTokens(tokens.features[:, left], None, "video", tokens.coords[left])
    frames = frames_of(cut)
    assert frames.of.tolist() == [0, 0, 1, 1, 2, 2, 2], "the third frame is gone"
    assert frames.size.tolist() == [2, 2, 3] and frames[3:] == (3, 3, 2)
    sheet = frames.sheet()
    torch.testing.assert_close(sheet.means(sheet.lay(cut.features))[1, 2], cut.features[1, 4:].mean(0))
    assert sheet.lay_mask(torch.ones(2, 7, dtype=torch.bool)).sum(2).tolist() == [[2, 2, 3]] * 2
    # 38 lies where 14 does, in the frame before; 39 where 3 does, two frames before.
    assert frame_before(cut, frames).tolist() == [-1, -1, -1, -1, -1, 2, -1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_place_in_the_frame_before(layout):
    tokens = make_tokens(LAYOUTS[layout])
    where, of = coords_of(tokens).tolist(), by_hand(tokens)
    seen = {(of[i], part, y, x): i for i, (part, _, y, x) in enumerate(where) if y >= 0}
    wanted = [
        seen.get((of[i] - 1, part, y, x), -1) if y >= 0 else -1 for i, (part, _, y, x) in enumerate(where)
    ]
    assert frame_before(tokens, frames_of(tokens)).tolist() == wanted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_total_shared_over_the_frames(layout):
    """One token after the other, in exact fractions; a second image has other weights and tokens that are left out."""
    tokens = make_tokens(LAYOUTS[layout], images=2)
    frames, of = frames_of(tokens), by_hand(tokens)
    sheet, n = frames.sheet(), len(of)
    out = torch.zeros(2, n, dtype=torch.bool)
    out[1] = torch.arange(n) % 3 == 1
    weight = torch.stack([frames.size, torch.arange(frames.count) % 2 + 1])
    rank = sheet.ranks(sheet.lay(tokens.saliency), last=sheet.lay(out))
    for total in {0, 1, n // 3, n - int(out[1].sum())}:
        got = sheet.shared(rank, weight, total, out=sheet.lay(out))
        for s in range(2):
            left = {
                t: sorted(
                    (i for i in range(n) if of[i] == t and not out[s, i]),
                    key=lambda i: (-float(tokens.saliency[s, i]), i),
                )
                for t in range(frames.count)
            }
            wanted, given = [], [0] * frames.count
            for _ in range(total):
                open_ = [t for t in left if given[t] < len(left[t])]
                best = min(open_, key=lambda t: (Fraction(2 * given[t] + 1, 2 * int(weight[s, t])), t))
                wanted.append(left[best][given[best]])
                given[best] += 1
            assert got[s].nonzero().flatten().tolist() == sorted(wanted)


def test_separators_follow_the_patch_before_them():
    coords = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, -1, -1], [-1, -1, -1, -1]])
    frames = frames_of(VisualTokens(torch.zeros(1, 4, 2), (2, 1, 1), "video", coords))
    assert frames.of.tolist() == [0, 1, 1, 1] and frames.patch.tolist() == [True, True, False, False]
    assert coords_of(VisualTokens(torch.zeros(1, 3, 2), None)).tolist() == [[0, 0, 0, x] for x in range(3)]
