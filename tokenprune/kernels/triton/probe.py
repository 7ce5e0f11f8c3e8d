"""The smallest kernel there is, to see whether Triton runs at all."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _one(out):
    tl.store(out, 1)


def probe(device: torch.device) -> None:
    """Raises whatever keeps a kernel from running on `device`."""
    out = torch.zeros(1, dtype=torch.int32, device=device)
    with torch.cuda.device(device) if device.type == "cuda" else torch.no_grad():
        _one[(1,)](out)
