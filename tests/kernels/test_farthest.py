"""The picker and its memory: small blocks, no Gram matrix, and growth change nothing."""

from __future__ import annotations

import pytest
import torch

from tokenprune.kernels import farthest, unit
from tokenprune.kernels.absorb import nearest_kept
from tokenprune.kernels.progress import even_counts, keep_counted, keep_fixed


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 6, 30, 12, generator=torch.Generator().manual_seed(0))


def test_blocks_and_products_instead_of_the_gram_change_nothing(x, monkeypatch):
    wanted = keep_fixed(x, even_counts(50, 6))
    frame = unit(x[:, 0])
    keep = torch.rand(2, 30, generator=torch.Generator().manual_seed(1)) < 0.3
    owner = nearest_kept(frame, keep, 0.1)
    assert torch.equal(nearest_kept(frame, keep, 0.1, block_bytes=1), owner)
    monkeypatch.setattr(farthest, "BLOCK_BYTES", 4 * 2 * 30 * 7)
    picker = farthest.Picker(frame, torch.full((2, 30), farthest.EMPTY))
    assert picker.gram is None
    assert torch.equal(keep_fixed(x, even_counts(50, 6)), wanted)


def test_the_order_is_nested_and_takes_everything_once(x):
    frame = unit(x[:, 0])
    runs = [farthest.Picker(frame, torch.full((2, 30), farthest.EMPTY)).take(k) for k in (4, 30)]
    assert torch.equal(runs[0], runs[1][:, :4])
    assert torch.equal(runs[1].sort(1).values, torch.arange(30).expand(2, -1))


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("cut", [None, 0.5])
def test_counts_on_the_device_choose_as_counts_on_the_host(x, window, cut):
    """Visits of half a frame's picks, for images that are in different frames at one time."""
    counts = [18, 3, 2, 17, 2, 3]
    turned = counts[3:] + counts[:3]
    both = keep_counted(x, torch.tensor([counts, turned]), 45, window=window, cut=cut)
    assert torch.equal(both[:1], keep_fixed(x[:1], counts, window=window, cut=cut))
    assert torch.equal(both[1:], keep_fixed(x[1:], turned, window=window, cut=cut))


def test_memory_forgets_what_left_its_window():
    g = torch.Generator().manual_seed(0)
    memory = farthest.Memory(torch.zeros(1, 1, 8), window=2)
    rows = [unit(torch.randn(1, 1 + t % 3, 8, generator=g)) for t in range(20)]
    probe = unit(torch.randn(1, 5, 8, generator=g))
    for t in range(20):
        seen = rows[max(0, t - 2) : t]
        near = memory.recall(probe, t)
        if seen:
            torch.testing.assert_close(near, (probe @ torch.cat(seen, 1).transpose(1, 2)).amax(2))
        else:
            assert (near == farthest.EMPTY).all()
        memory.append(rows[t], t)
    assert memory.rows.shape[1] <= 2 * 3 * 3


def test_even_counts():
    assert even_counts(4, 4) == [1] * 4 and even_counts(1, 5) == [0, 0, 1, 0, 0]
    for total in range(60):
        counts = even_counts(total, 7)
        assert sum(counts) == total and max(counts) - min(counts) <= 1
