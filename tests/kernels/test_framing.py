"""Frames of every layout against reading tokens one after the other."""

from __future__ import annotations

import pytest
import torch

from tokenprune.kernels.framing import coords_of, frames_of
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
    torch.testing.assert_close(sheet.means(laid), frames.means(tokens.features))
    assert torch.equal(sheet.take_up(sheet.lay(score)), score)
    quota = torch.stack([(frames.size + 1) // 2, frames.size - 1])
    got = sheet.best(sheet.lay(score), quota)
    for s in range(2):
        for t in range(frames.count):
            own = (of == t).nonzero().flatten().tolist()
            wanted = sorted(own, key=lambda i: (-float(score[s, i]), i))[: int(quota[s, t])]
            assert [i for i in own if got[s, i]] == sorted(wanted)
            torch.testing.assert_close(sheet.means(laid)[s, t], tokens.features[s, (of == t) & patch].mean(0))


def test_frames_of_a_clip_that_was_cut_before():
    tokens = make_tokens(LAYOUTS["video"], images=2)
    left = torch.tensor([3, 5, 14, 20, 37, 38, 39])
    cut = VisualTokens(tokens.features[:, left], None, "video", tokens.coords[left])
    frames = frames_of(cut)
    assert frames.of.tolist() == [0, 0, 1, 1, 2, 2, 2], "the third frame is gone"
    assert frames.size.tolist() == [2, 2, 3] and frames[3:] == (3, 3, 2)
    torch.testing.assert_close(frames.means(cut.features)[1, 2], cut.features[1, 4:].mean(0))


def test_separators_follow_the_patch_before_them():
    coords = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, -1, -1], [-1, -1, -1, -1]])
    frames = frames_of(VisualTokens(torch.zeros(1, 4, 2), (2, 1, 1), "video", coords))
    assert frames.of.tolist() == [0, 1, 1, 1] and frames.patch.tolist() == [True, True, False, False]
    assert coords_of(VisualTokens(torch.zeros(1, 3, 2), None)).tolist() == [[0, 0, 0, x] for x in range(3)]
