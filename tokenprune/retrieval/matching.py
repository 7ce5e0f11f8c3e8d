"""Late interaction: how much of one picture's tokens is in another's, in blocks of at most 64 MiB.

maxsim(q, g)  = (1 / K_q) sum_i max_j <q_i, g_j>          Khattab and Zaharia, 2020, arXiv:2004.12832, but a mean
chamfer(q, g) = (maxsim(q, g) + maxsim(g, q)) / 2
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError, UnknownNameError, neighbours
from ..kernels import BLOCK_BYTES

MATCHES = ("maxsim", "chamfer")


def check_match(match: str) -> str:
    """The name back, or `UnknownNameError`."""
    if match not in MATCHES:
        raise UnknownNameError(f"no way of matching named {match!r}; {neighbours(str(match), MATCHES)}")
    return match


def maxsim(queries: Tensor, gallery: Tensor, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """(Q, K_q, D), (G, K_g, D) unit rows of any float dtype -> (Q, G) float32; K_q and K_g may differ."""
    return late_interaction(queries, gallery, "maxsim", block_bytes)


def chamfer(queries: Tensor, gallery: Tensor, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """As `maxsim`, both ways: symmetric in its arguments."""
    return late_interaction(queries, gallery, "chamfer", block_bytes)


@torch.no_grad()
def late_interaction(
    queries: Tensor, gallery: Tensor, match: str = "maxsim", block_bytes: int = BLOCK_BYTES
) -> Tensor:
    """(Q, K_q, D), (G, K_g, D) -> (Q, G) float32. No block of products, nor copy of tokens, exceeds `block_bytes`."""
    check_match(match)
    if queries.ndim != 3 or gallery.ndim != 3 or queries.shape[2] != gallery.shape[2]:
        raise InputError(
            f"tokens of shapes {tuple(queries.shape)} and {tuple(gallery.shape)}: (pictures, tokens, width) of one "
            "width are matched"
        )
    (count, kq, width), (stored, kg, _) = queries.shape, gallery.shape
    out = torch.empty(count, stored, device=queries.device)
    columns = max(1, min(stored, block_bytes // (4 * kg * max(width, kq))))
    rows = max(1, block_bytes // (4 * kq * kg * columns))
    for g in range(0, stored, columns):
        part = gallery[g : g + columns].to(queries.device, torch.float32).flatten(0, 1)
        for q in range(0, count, rows):
            asked = queries[q : q + rows].float()
            product = (part @ asked.flatten(0, 1).T).view(-1, kg, len(asked), kq)  # (g, K_g, q, K_q)
            score = product.amax(1).mean(2)
            if match == "chamfer":
                score = (score + product.amax(3).mean(1)) / 2
            out[q : q + rows, g : g + columns] = score.T
    return out
