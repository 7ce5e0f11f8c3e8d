"""DART: a few pivots, and the tokens that duplicate them least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import budget as _budget
from ..errors import TokenPruneError
from ..kernels import cosine, ranking, unit
from ..kernels.clusters import rows
from ..tokens import Selection, Stage, VisualTokens
from .base import Reducer, register


@register("dart")
@dataclass(frozen=True)
class DART(Reducer):
    """One cut early in the language model: pivots of large keys, and the tokens least similar to them.

    Wen et al., 2025, arXiv:2502.11494. With k_n the keys of layer k-1, all heads, and x_n the states entering layer k:

        pivots: the `visual_pivots` visual and the `text_pivots` question tokens of largest |k_n|_1
        for each pivot p in turn: of the visual tokens left, those with the lowest cos(x_n, x_p) are taken

    until `keep` are together with the visual pivots. Pivots take equal shares, the first ones one more where it does
    not divide. No attention is read. `keys` (S, Hkv, N, d_h), `text_keys` (S, Hkv, T, d_h), `features` (S, N, D).

    Order. The released loop goes through Python sets and depends on their order; here visual pivots come first,
    then text, each by falling norm, ties to the lower index. A question with fewer tokens than `text_pivots` lends
    its own again in turn, and one without any the visual pivots, so that counts never depend on the batch.
    Deviations. Cosines are of the states themselves; the released code applies the model's last norm to them, which
    a method does not see. Text pivots are tokens of the question, not of the whole prompt; text_pivots=0 makes the
    choice independent of it. Traps. The L1 norm of keys depends on RoPE, that is on where the image stands.
    """

    stage: ClassVar[Stage] = "layer"
    query_aware: ClassVar[bool] = True

    layer: float | int = 2
    budget: str = "average"
    visual_pivots: int = 4
    text_pivots: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layer", _budget.check_layer(self.layer))
        _budget.check_budget(self.budget)
        for name, least in (("visual_pivots", 1), ("text_pivots", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 256:
                raise TokenPruneError(f"{name}={value!r}: an int from {least} to 256")

    @property
    def needs(self) -> frozenset[str]:
        """Text only where it gives pivots."""
        return frozenset({"keys", "text", "text_keys"} if self.text_pivots else {"keys"})

    def cut_layers(self, num_layers: int) -> tuple[int, ...]:
        return _budget.cut_layers([self.layer], num_layers)

    def pivots(self, tokens: VisualTokens, keys: Tensor, first: Tensor) -> Tensor:
        """(S, V) visual pivots -> (S, V + text_pivots, D) unit rows of all pivots, in their order."""
        own = unit(rows(tokens.features, first))
        more, text, text_keys = self.text_pivots, tokens.text, tokens.text_keys
        if not more:
            return own
        turn = torch.arange(more, device=keys.device)
        again = own[:, turn % own.shape[1]]
        if text is None or text_keys is None or text.shape[1] == 0:
            return torch.cat([own, again], 1)
        size = _l1(text_keys)
        count = torch.full_like(size[:, 0], size.shape[1], dtype=torch.long)
        if tokens.text_mask is not None:
            size, count = size.masked_fill(~tokens.text_mask, -1.0), tokens.text_mask.sum(1)
        order = size.argsort(dim=1, descending=True, stable=True)
        place = turn % count.clamp_min(1).unsqueeze(1)  # (S, more), fewer tokens than pivots go round
        words = unit(rows(text, order.gather(1, place)))
        return torch.cat([own, torch.where((count > 0)[:, None, None], words, again)], 1)

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        if tokens.keys is None:
            raise TokenPruneError("dart needs the keys of the layer before its cut")
        with ranking(tokens.keys):
            order = _l1(tokens.keys).argsort(dim=1, descending=True, stable=True)
            first = order[:, : min(self.visual_pivots, keep)]
            pivots = self.pivots(tokens, tokens.keys, first)
            alike = cosine(tokens.features, pivots)  # (S, N, P)
            kept = torch.zeros_like(order, dtype=torch.bool).scatter(1, first, True)
            share, rest = divmod(keep - first.shape[1], pivots.shape[1])
            for p in range(pivots.shape[1]):
                quota = share + (p < rest)
                if quota:
                    left = alike[:, :, p].masked_fill(kept, float("inf")).argsort(dim=1, stable=True)
                    kept = kept.scatter(1, left[:, :quota], True)
            return Selection(kept, scores=1 - alike.amin(2))  # type: ignore[arg-type]


def _l1(keys: Tensor) -> Tensor:
    """(S, Hkv, N, d_h) -> (S, N) float32 L1 norm over heads and width."""
    return torch.linalg.vector_norm(keys, ord=1, dim=(1, 3), dtype=torch.float32)
