"""Inner products of an image's tokens with each other, a row at a time, for greedy loops."""

from __future__ import annotations

import torch
from torch import Tensor

from .similarity import BLOCK_BYTES


class Gram:
    """Rows of x x^T for (S, N, C) `x`: read from memory where all of it fits into one block, else made on demand.

    A loop of K steps costs N^2 C + K N where it fits, and K N C where it does not; the shapes decide.
    """

    def __init__(self, x: Tensor, block_bytes: int = BLOCK_BYTES) -> None:
        s, n, _ = x.shape
        self.x, self.block_bytes = x, block_bytes
        self.whole = torch.bmm(x, x.transpose(1, 2)) if 4 * s * n * n <= block_bytes else None

    def row(self, index: Tensor) -> Tensor:
        """(S, 1) token of each image -> (S, N) its products with all tokens."""
        source = self.x if self.whole is None else self.whole
        one = source.gather(1, index.unsqueeze(2).expand(-1, -1, source.shape[2]))
        if self.whole is not None:
            return one.squeeze(1)
        return torch.bmm(self.x, one.transpose(1, 2)).squeeze(2)

    def diagonal(self) -> Tensor:
        """(S, N) squared lengths."""
        return self.x.square().sum(2)

    def nearest(self) -> Tensor:
        """(S, N) each token's largest product with another one; -inf where there is no other."""
        s, n, _ = self.x.shape
        step = n if self.whole is not None else max(1, self.block_bytes // (4 * s * n))
        best = []
        for i in range(0, n, step):
            if self.whole is not None:
                block = self.whole.clone()
            else:
                block = torch.bmm(self.x[:, i : i + step], self.x.transpose(1, 2))
            block.diagonal(i, 1, 2).fill_(float("-inf"))
            best.append(block.amax(2))
        return torch.cat(best, 1)
