"""Run by `test_interpreter.py` in a process of its own, in which Triton interprets its kernels on the CPU."""

from __future__ import annotations

import os
import zlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.methods.make import LAYOUTS, make_tokens
from tokenprune import kernels
from tokenprune.kernels.assign import best_match
from tokenprune.kernels.bipartite import merge_round
from tokenprune.methods import get_method, list_methods, method_class

from .cases import CASES, HALF, noise
from .equal import check

assert os.environ.get("TRITON_INTERPRET") == "1", "see test_interpreter.py"
quick = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class Sizes:
    """Drawn by hypothesis."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def size(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def flag(self) -> bool:
        return self.data.draw(st.booleans())


@pytest.mark.parametrize("name", CASES)
@quick
@given(data=st.data())
def test_equals_its_reference(name, data):
    check(CASES[name](Sizes(data), "cpu"), torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "name", [n for n in HALF if n != "entropy_by_eigenvalues"]
)  # as by_polynomial, but slow
@settings(quick, max_examples=1)
@given(data=st.data())
def test_half_precision_too(name, dtype, data):
    check(CASES[name](Sizes(data), "cpu"), dtype)


def test_a_tie_goes_to_the_lower_index():
    a, b = (
        noise(i, 2, n, 3).mul(2).round() for i, n in ((1, 30), (2, 150))
    )  # whole numbers, three tiles of b
    with kernels.backend("triton"):
        _, where = best_match(a, b)
    products = torch.einsum("sac,sbc->sab", a, b).numpy()
    assert (where.numpy() == products.argmax(2)).all() and (
        (products == products.max(2, keepdims=True)).sum(2) > 1
    ).any()


@pytest.mark.parametrize("n", [2, 75, 134])  # odd and even, one tile and two of each side
def test_bipartite_matching_merges_the_same(n):
    """From no pair to every one, of one sort and of two, several images at once."""
    x = noise(n, 2, n, 20)
    sort = noise(1, 2, n) > 0.3
    for r, sorts in ((0, None), (n // 3, sort), (n // 2, None)):
        with kernels.backend("torch"):
            wanted = merge_round(x, r, sorts)
        with kernels.backend("triton"):
            got = merge_round(x, r, sorts)
        assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
        assert got.source.shape == (2, r)


@pytest.mark.parametrize("keep", [0, 40, 90])
def test_bipartite_deduplication_keeps_the_same(keep):
    x, order = kernels.unit(noise(4, 2, 100, 12)), noise(5, 2, 100).argsort(1)[:, :90]
    with kernels.backend("torch"):
        wanted = kernels.bipartite_dedup(x, order, keep, window=16)
    with kernels.backend("triton"):
        got = kernels.bipartite_dedup(x, order, keep, window=16)
    assert torch.equal(wanted, got) and got.shape == (2, keep)


QUICK = {
    "entropyprune": {"solver": "chebyshev"}
}  # rotations of every token take the interpreter half a minute


@pytest.mark.parametrize("name", [n for n in list_methods() if method_class(n).stage != "decode"])
def test_methods_choose_the_same(name):
    """End to end through the switch: every call that is covered runs in Triton, the choice is the reference's."""
    seed = zlib.crc32(name.encode()) % 99
    method, tokens = (
        get_method(name, **QUICK.get(name, {})),
        make_tokens(LAYOUTS["video-newline"], images=2, seed=seed),
    )
    with kernels.backend("torch"):
        wanted = method.select(tokens, 7)
    with kernels.backend("triton"):
        got = method.select(tokens, 7)
    assert torch.equal(wanted.keep, got.keep)
    if wanted.features is not None:
        torch.testing.assert_close(wanted.features, got.features, atol=1e-4, rtol=1e-4)
