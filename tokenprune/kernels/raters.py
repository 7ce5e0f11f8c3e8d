"""Which words of a question speak of the picture."""

from __future__ import annotations

import torch
from torch import BoolTensor, Tensor

from .similarity import BLOCK_BYTES


def visual_words(
    visual: Tensor, text: Tensor, mask: Tensor | None = None, block_bytes: int = BLOCK_BYTES
) -> BoolTensor:
    """(S, N, D), (S, T, D), (S, T) words that count -> (S, T): the words that the visual tokens point at.

    m_t = mean over n of softmax over t of <visual_n, text_t>; those above the mean of m stay, all where none is
    (they are equal then, or there is one word), none where there is no word. Visual tokens come in blocks.
    """
    s, n, _ = visual.shape
    words = text.float().transpose(1, 2)
    valid = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device) if mask is None else mask
    lowest = torch.finfo(torch.float32).min  # -inf would make NaN of a row without words
    step = max(1, block_bytes // (4 * s * max(text.shape[1], visual.shape[2])))
    total = torch.zeros(text.shape[:2], device=text.device)
    for i in range(0, n, step):
        logits = torch.bmm(visual[:, i : i + step].float(), words)
        total += logits.masked_fill(~valid.unsqueeze(1), lowest).softmax(2).sum(1)
    share = total * valid / n
    mean = share.sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp_min(1)
    above = (share > mean) & valid
    return torch.where(above.any(1, keepdim=True), above, valid)  # type: ignore[return-value]
