"""Watch the attention of the decoder layer before a cut: queries, keys, and the rows of attention a method asks for.

What is looked at is what the attention kernel itself is given (after norms and RoPE, grouped heads as they are), so
the user's implementation stays on. Only the rows asked for are computed, never an n x n matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PatchError, UnsupportedModelError
from ..kernels.attention import column_attention, query_attention
from .attention import Taps
from .parts import Parts
from .step import Step

LAYER_FIELDS = frozenset({"queries", "keys", "attention", "text_attention", "received", "text_keys"})
TEXT_FIELDS = frozenset({"text_attention", "text_keys"})


@dataclass(eq=False)
class Places:
    """Logical places in a prompt: the question's tokens (B, T) with their mask, the last token (B,), padding."""

    question: Tensor | None
    question_mask: Tensor | None
    last: Tensor
    real: Tensor | None = None  # (B, L), False at padding


class DecoderProbe:
    """Taps the layers whose attention some cut needs; `at` hands out what the latest of them saw."""

    def __init__(self, parts: Parts, wanted: Mapping[int, frozenset[str]], active: Callable[[], bool]) -> None:
        self.parts = parts
        self.wanted = {k: names for k, names in wanted.items() if names}
        self.active = active
        self._taps = Taps()
        self._seen: tuple[nn.Module, Tensor, Tensor, Any, dict[str, Any]] | None = None

    def install(self) -> None:
        """Tap the layer before every cut that needs one."""
        for k in self.wanted:
            self._taps.add(list(self.parts.layers[k - 1].modules()), self._see)

    def remove(self) -> None:
        """Undo `install`."""
        self._taps.remove()
        self._seen = None

    def _see(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, kwargs: dict[str, Any]
    ) -> None:
        if self.active():
            self._seen = (module, query.detach(), key.detach(), mask, kwargs)

    def at(self, k: int, step: Step, places: Places) -> Watched | None:
        """What layer k - 1 saw in this forward, None when no method of the cut at k asks; then it is forgotten."""
        if k not in self.wanted:
            return None
        seen, self._seen = self._seen, None
        if seen is None:
            raise UnsupportedModelError(
                f"layer {k - 1} of {type(self.parts.model).__name__} has no attention that could be observed, which "
                f"{', '.join(sorted(self.wanted[k]))} at layer {k} needs; choose another layer"
            )
        return Watched(*seen, step=step, places=places)


@dataclass(eq=False)
class Watched:
    """One layer's attention call, as fields of `VisualTokens` for any group of its tokens."""

    module: nn.Module
    query: Tensor  # (B, H, P, d)
    key: Tensor  # (B, Hkv, K, d), K - P of the past
    mask: Any
    kwargs: dict[str, Any]
    step: Step
    places: Places

    @torch.no_grad()
    def fields(self, names: frozenset[str], flat: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """The fields `names` of (S, N) visual tokens at flat logical places, in batch rows (S,)."""
        out: dict[str, Tensor] = {}
        here = self.step.rows_of(flat.flatten())  # type: ignore[arg-type]
        if "queries" in names:
            out["queries"] = self._take(self.query, here, flat.shape)
        if "keys" in names:
            out["keys"] = self._take(self._now, here, flat.shape)
        if "attention" in names:
            out["attention"] = self._once("attention", self._last_row).flatten()[here].view(flat.shape)
        if "received" in names:
            out["received"] = self._once("received", self._received).flatten()[here].view(flat.shape)
        if "text_attention" in names:
            seen = self._once("text_attention", self._text_rows)  # (B, T, P)
            columns = seen.transpose(1, 2).flatten(0, 1)[here].unflatten(0, tuple(flat.shape))
            out["text_attention"] = columns.transpose(1, 2)
        if "text_keys" in names:
            question = self._question()
            keys = self._now.transpose(1, 2).flatten(0, 1)[self._physical(question)]
            out["text_keys"] = keys.unflatten(0, question.shape).transpose(1, 2)[rows]
        return out

    @property
    def _now(self) -> Tensor:
        """Keys of this forward, (B, Hkv, P, d)."""
        return self.key[:, :, self._past :]

    @property
    def _past(self) -> int:
        return self.key.shape[2] - self.query.shape[2]

    def _take(self, states: Tensor, here: Tensor, shape: torch.Size) -> Tensor:
        """(B, H, P, d) -> (S, H, N, d)."""
        return states.transpose(1, 2).flatten(0, 1)[here].unflatten(0, tuple(shape)).transpose(1, 2)

    def _once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """Computed for the first group, reused by the others."""
        if name not in self.__dict__:
            self.__dict__[name] = make()
        return self.__dict__[name]

    def _physical(self, logical: Tensor) -> Tensor:
        """Flat physical rows of (B, T) logical places."""
        base = torch.arange(logical.shape[0], device=logical.device)[:, None] * self.step.length
        return self.step.rows_of((logical + base).flatten())  # type: ignore[arg-type]

    def _question(self) -> Tensor:
        if self.places.question is None:
            raise PatchError(
                "this method looks at the question inside the language model, where a question set by "
                "handle.question() does not stand; put it into the prompt"
            )
        return self.places.question

    def _rows(self, logical: Tensor) -> Tensor:
        """Head-mean attention of the tokens at (B, Q) logical places over the tokens of this forward, (B, Q, P)."""
        length = self.query.shape[2]
        at = self._physical(logical).view(logical.shape) % length
        queries = self.query.gather(2, at[:, None, :, None].expand(-1, self.query.shape[1], -1, self.query.shape[3]))
        allowed = self.allowed(at)
        seen = query_attention(queries, self.key, self.scaling, allowed, self.kwargs.get("softcap"))
        return seen[:, :, self._past :]

    def _last_row(self) -> Tensor:
        return self._rows(self.places.last[:, None])[:, 0]

    def _text_rows(self) -> Tensor:
        rows = self._rows(self._question())
        mask = self.places.question_mask
        return rows if mask is None else rows.masked_fill(~mask[..., None], 0.0)

    def _received(self) -> Tensor:
        """Mean over the prompt's tokens of what each of this forward's keys receives, (B, P)."""
        valid, index = self.places.real, self.step.index
        if index is not None:
            alive = index >= 0
            valid = alive if valid is None else valid.gather(1, index.clamp(min=0)) & alive
        mask = self.mask[..., : self.key.shape[2]] if isinstance(self.mask, Tensor) else None
        told = mask is not None and mask.dim() == 4  # by a mask that has everything in it
        causal = not told and self.query.shape[2] > 1 and self._causal
        seen = column_attention(
            self.query, self.key, self.scaling, mask, causal=causal, window=self.kwargs.get("sliding_window"),
            valid=valid, softcap=self.kwargs.get("softcap"),
        )  # fmt: skip
        return seen[:, self._past :]

    @property
    def scaling(self) -> float:
        given = self.kwargs.get("scaling")
        return self.query.shape[-1] ** -0.5 if given is None else float(given)

    def allowed(self, at: Tensor) -> Tensor | None:
        """What physical queries (B, Q) may look at, as the kernel was told: (B, 1, Q, K), boolean or additive."""
        mask, device = self.mask, self.query.device
        if isinstance(mask, Tensor) and mask.dim() == 4:
            rows = mask.expand(at.shape[0], -1, -1, -1)[..., : self.key.shape[2]]
            index = at.to(mask.device)[:, None, :, None].expand(-1, rows.shape[1], -1, rows.shape[3])
            return rows.gather(2, index)
        columns = torch.arange(self.key.shape[2], device=device)
        out = None
        if self.query.shape[2] > 1 and self._causal:
            age = (at + self._past)[:, None, :, None] - columns
            out = age >= 0
            window = self.kwargs.get("sliding_window")
            if window:
                out &= age < window
        if isinstance(mask, Tensor) and mask.dim() == 2:  # padding, as FlashAttention takes it
            seen = mask[:, None, None, : self.key.shape[2]].bool()
            out = seen if out is None else out & seen
        return out

    @property
    def _causal(self) -> bool:
        given = self.kwargs.get("is_causal")
        return bool(getattr(self.module, "is_causal", True) if given is None else given)
