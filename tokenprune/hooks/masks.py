"""Attention masks made for the logical sequence, cut down to the rows and columns that exist physically."""

from __future__ import annotations

from typing import Any

import torch
from torch import LongTensor, Tensor

from ..errors import PatchError


def remap(mask: Tensor, rows: LongTensor | None, columns: LongTensor | None, batch: int) -> Tensor:
    """Pick query rows and key columns of a (B or 1, heads or 1, Q, K) mask, or columns of a (B, K) padding mask.

    `rows` (B, P) and `columns` (B, M) count from the mask's own first row and column; None leaves that side as it
    is. A negative column is a key outside the mask (filler, or older than the window): always masked.
    """
    if mask.dim() == 2:
        return mask if columns is None else _pick(mask, columns, 1, _masked_value(mask))
    if mask.dim() != 4:
        raise PatchError(
            f"an attention mask with {mask.dim()} dimensions is not supported; pass a 2-D or 4-D one"
        )
    if rows is not None and columns is not None and mask.shape[0] == 1 and batch == 1:
        out = mask.index_select(2, rows[0].clamp(min=0))
        return _mask_out(out.index_select(3, columns[0].clamp(min=0)), columns)
    out = mask if mask.shape[0] == batch else mask.expand(batch, -1, -1, -1)
    if rows is not None:
        index = rows.clamp(min=0)[:, None, :, None].expand(-1, out.shape[1], -1, out.shape[3])
        out = out.gather(2, index)
    if columns is not None:
        index = columns.clamp(min=0)[:, None, None, :].expand(-1, out.shape[1], out.shape[2], -1)
        out = _mask_out(out.gather(3, index), columns)
    return out


def _mask_out(mask: Tensor, columns: Tensor) -> Tensor:
    return mask.masked_fill((columns < 0)[:, None, None, :], _masked_value(mask))


def _pick(mask: Tensor, columns: Tensor, dim: int, value: Any) -> Tensor:
    return mask.gather(dim, columns.clamp(min=0)).masked_fill(columns < 0, value)


def _masked_value(mask: Tensor) -> Any:
    return torch.finfo(mask.dtype).min if mask.dtype.is_floating_point else 0


def causal(rows: LongTensor, columns: LongTensor, implementation: str) -> Tensor:
    """The mask that transformers left out (None), written out because rows of the batch differ in length.

    `rows` (B, P) and `columns` (B, M) are logical indices; filler (negative) columns are masked.
    """
    if "flash" in implementation:
        return (columns >= 0).long()
    if implementation == "sdpa":
        allowed = (columns[:, None, :] <= rows[:, :, None]) & (columns >= 0)[:, None, :]
        return allowed[:, None]
    raise PatchError(
        f"batches of unequal length are not supported under {implementation!r}; use 'sdpa' or 'eager'"
    )
