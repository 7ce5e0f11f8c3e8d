"""Late interaction against loops in plain Python."""

from __future__ import annotations

import pytest
import torch

from tokenprune.errors import InputError, UnknownNameError
from tokenprune.kernels import unit
from tokenprune.retrieval import chamfer, maxsim
from tokenprune.retrieval.matching import check_match


def rows(count: int, tokens: int, seed: int) -> torch.Tensor:
    return unit(torch.randn(count, tokens, 7, generator=torch.Generator().manual_seed(seed)))


def by_hand(q: torch.Tensor, g: torch.Tensor) -> float:
    best = [max(sum(a * b for a, b in zip(x, y)) for y in g.tolist()) for x in q.tolist()]
    return sum(best) / len(best)


@pytest.mark.parametrize("block_bytes", [1, 600, 2**26])
def test_against_loops(block_bytes):
    queries, gallery = rows(3, 4, 0), rows(5, 6, 1)
    one = torch.tensor([[by_hand(q, g) for g in gallery] for q in queries])
    back = torch.tensor([[by_hand(g, q) for g in gallery] for q in queries])
    torch.testing.assert_close(maxsim(queries, gallery, block_bytes), one)
    torch.testing.assert_close(chamfer(queries, gallery, block_bytes), (one + back) / 2)
    torch.testing.assert_close(chamfer(gallery, queries, block_bytes), ((one + back) / 2).T)


def test_by_hand():
    q = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    g = torch.tensor([[[1.0, 0.0]], [[0.6, 0.8]]])
    torch.testing.assert_close(maxsim(q, g), torch.tensor([[0.5, 0.7]]))
    torch.testing.assert_close(chamfer(q, g), torch.tensor([[0.75, 0.75]]))


def test_half_precision_is_summed_in_float32():
    queries, gallery = rows(2, 90, 2), rows(3, 50, 3)
    found = maxsim(queries.half(), gallery.half())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, maxsim(queries, gallery), rtol=0, atol=1e-3)
    torch.testing.assert_close(maxsim(gallery, gallery).diagonal(), torch.ones(3))


def test_what_is_refused():
    with pytest.raises(InputError, match="width"):
        maxsim(rows(1, 2, 0), torch.zeros(1, 2, 3))
    with pytest.raises(InputError):
        maxsim(rows(1, 2, 0)[0], rows(1, 2, 0))
    with pytest.raises(UnknownNameError, match="chamfer"):
        check_match("chamfers")
