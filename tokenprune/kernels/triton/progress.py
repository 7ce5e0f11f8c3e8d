"""What each frame adds to the one before it, all frames in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..farthest import SAME
from ..similarity import TINY
from .shared import FLOAT32, alike, cdiv, pow2


@triton.jit
def _residual(
    x, length, out, frames, tokens, width, tiles, x_s, x_t, x_n, x_d,
    CLOSE: tl.constexpr, SMALL: tl.constexpr, PRECISION: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Sum over a tile of a frame's tokens of 1 - the largest cosine with any token of the frame before."""
    tile, pair = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    image, frame = (pair // (frames - 1)).to(tl.int64), (pair % (frames - 1) + 1).to(tl.int64)
    m, c = tile * M + tl.arange(0, M), tl.arange(0, C)
    here, before = x + image * x_s + frame * x_t, x + image * x_s + (frame - 1) * x_t
    length += (image * frames + frame) * tokens
    own = tl.maximum(tl.load(length + m, mask=m < tokens, other=1.0), SMALL)
    near = tl.full([M], float("-inf"), tl.float32)
    for start in range(0, tokens, N):
        n = start + tl.arange(0, N)
        product = tl.zeros([M, N], tl.float32)
        for first in range(0, width, C):
            k = first + c
            a = tl.load(
                here + m[:, None] * x_n + k[None, :] * x_d,
                mask=(m < tokens)[:, None] & (k < width)[None, :],
                other=0.0,
            )
            b = tl.load(
                before + n[None, :] * x_n + k[:, None] * x_d,
                mask=(n < tokens)[None, :] & (k < width)[:, None],
                other=0.0,
            )
            product = tl.dot(a, b, product, input_precision=PRECISION)
        other = tl.maximum(tl.load(length - tokens + n, mask=n < tokens, other=1.0), SMALL)
        cosine = tl.where((n < tokens)[None, :], product / other[None, :], float("-inf"))
        near = tl.maximum(near, tl.max(cosine, 1))
    near = near / own
    near = tl.where(near > 1 - CLOSE, 1.0, near)
    left = tl.where(m < tokens, tl.maximum(1 - near, 0.0), 0.0)
    tl.store(out + tl.program_id(0), tl.sum(left, 0))


def novelty(x: Tensor) -> Tensor:
    """As the reference."""
    s, frames, n, width = x.shape
    if frames == 1:
        return NotImplemented
    (x,) = alike(x)
    length = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32)
    m, tokens = pow2(min(n, 64), 16), pow2(min(n, 64), 16)
    tiles = cdiv(n, m)
    sums = torch.empty(s, frames - 1, tiles, device=x.device)
    _residual[(sums.numel(),)](
        x, length, sums, frames, n, width, tiles, *x.stride(), CLOSE=SAME, SMALL=TINY,
        PRECISION=FLOAT32.value, M=m, N=tokens, C=pow2(min(width, 64), 16),
    )  # fmt: skip
    first = torch.full((s, 1), 0.9 * n, device=x.device)
    return torch.cat([first, sums.sum(2)], 1)
