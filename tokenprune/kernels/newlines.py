"""Row separators among visual tokens."""

from __future__ import annotations

import torch
from torch import BoolTensor, Tensor

from ..tokens import NEWLINE, VisualTokens


def newlines(tokens: VisualTokens) -> BoolTensor:
    """(S, N): True at row separators; none where nothing says where tokens lie."""
    s, n, _ = tokens.shape
    if tokens.coords is None:
        return torch.zeros(s, n, dtype=torch.bool, device=tokens.features.device)  # type: ignore[return-value]
    found: Tensor = tokens.coords[:, 2] == NEWLINE
    return found.expand(s, -1)  # type: ignore[return-value]
