"""The compiled kernels against the references on a CUDA device, in every dtype: `pytest -m gpu`."""

from __future__ import annotations

import random

import pytest
import torch

from tests.methods.make import LAYOUTS, make_tokens
from tokenprune import kernels
from tokenprune.methods import get_method, list_methods, method_class
from tokenprune.tokens import VisualTokens

from .cases import CASES, HALF
from .equal import check

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
PRECISIONS = [
    (name, dtype)
    for name in CASES
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
    if dtype == torch.float32 or name in HALF
]


class Drawn:
    """Sizes from a seed; every second call takes a bound."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def size(self, low: int, high: int) -> int:
        return self.random.choice([low, high, self.random.randint(low, high), self.random.randint(low, high)])

    def flag(self) -> bool:
        return self.random.random() < 0.5


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("name", "dtype"), PRECISIONS)
def test_equals_its_reference(name, dtype, seed):
    with torch.cuda.device(0):
        check(CASES[name](Drawn(seed), "cuda:0"), dtype)


def on_gpu(tokens: VisualTokens) -> VisualTokens:
    moved = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in vars(tokens).items()}
    return VisualTokens(**moved)


@pytest.mark.parametrize("name", [n for n in list_methods() if method_class(n).stage != "decode"])
def test_methods_choose_the_same(name):
    tokens = on_gpu(make_tokens(LAYOUTS["video-newline"], images=3))
    method = get_method(name)
    with kernels.backend("torch"):
        wanted = method.select(tokens, 11)
    with kernels.backend("triton"):
        got = method.select(tokens, 11)
    assert torch.equal(wanted.keep, got.keep)
    if wanted.features is not None:
        torch.testing.assert_close(wanted.features, got.features, atol=1e-4, rtol=1e-4)


def test_auto_is_triton_and_waits_for_nothing():
    """The calls that a capture of a CUDA graph allows are those that never wait."""
    x = kernels.unit(torch.randn(2, 576, 64, device="cuda"))
    from tokenprune.kernels.maxmin import max_min

    eager = max_min(x, 64).index
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        max_min(x, 64)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        index = max_min(x, 64).index
    graph.replay()
    assert torch.equal(index, eager)
