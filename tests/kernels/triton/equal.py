"""A Triton version's answer against its reference's, the latter in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tokenprune.kernels.switch import version_of

from .cases import Call

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
"""Absolute and relative, by the dtype of an output: what it rounds to, or float32 sums in another order."""


def check(call: Call, dtype: torch.dtype) -> None:
    """Indices equal, numbers within `TOLERANCE`."""
    function = call.function
    wanted = function.reference(*map(widened, call.arguments(dtype)), **call.named)
    got = version_of(function.home, function.__name__)(*call.arguments(dtype), **call.named)
    assert got is not NotImplemented, "this size is covered"
    wanted, got = (x if isinstance(x, tuple) else (x,) for x in (wanted, got))
    assert len(wanted) == len(got)
    for a, b in zip(wanted, got):
        assert a.shape == b.shape and a.device == b.device
        if not a.dtype.is_floating_point:
            assert torch.equal(a, b)
            continue
        limit = TOLERANCE[b.dtype]
        torch.testing.assert_close(b.float(), a.float(), atol=limit, rtol=limit)


def widened(x: Any) -> Any:
    """Half precision as float32, which holds it exactly."""
    half = isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16)
    return x.float() if half else x
