"""Which tokens of a prompt are the question: the latest user turn, or the best guess without a processor."""

from __future__ import annotations

from typing import Any

import torch
from torch import BoolTensor, Tensor

from ..errors import InputError
from .layout import Layout

_MARK = "QQQ"  # stands for the question while the template's own text around it is looked for


class QuestionFinder:
    """Finds question tokens in `input_ids`; with a processor it knows where a user turn begins and ends."""

    def __init__(self, config: Any, processor: Any = None) -> None:
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.special = _special_ids(config)
        self.before = self.after = ""
        self.fixed: str | Tensor | None = None
        if self.tokenizer is not None:
            self.special |= set(getattr(self.tokenizer, "all_special_ids", []))
            self.before, self.after = _template(processor)

    @property
    def rule(self) -> str:
        """How the question is found, in words, for `explain`."""
        if self.fixed is not None:
            return "set by handle.question()"
        if self.before or self.after:
            return "the latest user turn, by the chat template"
        return "every non-special text token after the last image or, if none, before the first one"

    def set(self, question: str | Tensor | None) -> None:
        """Fix the question as text or token ids; None: look for it in the prompt again."""
        if isinstance(question, str) and self.tokenizer is None:
            raise InputError(
                "handle.question(text) needs patch_model(..., processor=...); or give it token ids"
            )
        self.fixed = question

    def fixed_ids(self) -> Tensor | None:
        """(1, T) token ids set by hand, or None."""
        if self.fixed is None or isinstance(self.fixed, Tensor):
            return self.fixed if self.fixed is None else self.fixed.reshape(1, -1)
        return torch.tensor([self.tokenizer(self.fixed, add_special_tokens=False)["input_ids"]])

    def find(self, ids: Tensor, layout: Layout, padding: Tensor | None) -> BoolTensor:
        """(B, L) mask of the question's tokens. `ids` on the CPU; `padding` (B, L) is True at real tokens."""
        text = ~layout.visual
        for special in self.special:
            text &= ids != special
        if padding is not None:
            text &= padding
        out = torch.zeros_like(text)
        for row in range(ids.shape[0]):
            turn = self._turn(ids[row]) if (self.before or self.after) else None
            if turn is not None and bool((text[row, turn[0] : turn[1]]).any()):
                out[row, turn[0] : turn[1]] = text[row, turn[0] : turn[1]]
                continue
            places = layout.visual[row].nonzero()
            end = int(places[-1]) + 1 if len(places) else 0
            out[row, end:] = text[row, end:]
            if not bool(out[row].any()) and len(places):
                start = int(places[0])
                out[row, :start] = text[row, :start]
        return out  # type: ignore[return-value]

    def text_of(self, ids: Tensor, mask: Tensor) -> list[str] | None:
        """The question of each row as a string; needs a processor."""
        if self.tokenizer is None:
            return None
        if self.fixed is not None:
            text = self.fixed if isinstance(self.fixed, str) else self.tokenizer.decode(self.fixed.flatten())
            return [text] * ids.shape[0]
        return [self.tokenizer.decode(row[m]) for row, m in zip(ids, mask)]

    def _turn(self, ids: Tensor) -> tuple[int, int] | None:
        """First and one past the last token of the latest user turn of one row, or None when it is not found.

        The template's text is searched in the decoded prompt, white space aside, since tokens may join across it.
        """
        order = ids.tolist()
        known = {i: _squeeze(self.tokenizer.decode([i])) for i in set(order)}  # an image is one id many times over
        pieces = [known[i] for i in order]
        joined = "".join(pieces)
        end = joined.rfind(self.after) if self.after else len(joined)
        if end < 0:
            return None
        start = joined.rfind(self.before, 0, end) if self.before else 0
        if start < 0:
            return None
        start += len(self.before)
        first = last = None
        offset = 0
        for index, piece in enumerate(pieces):
            if piece and offset >= start and offset + len(piece) <= end:
                first = index if first is None else first
                last = index + 1
            offset += len(piece)
        return (first, last) if first is not None and last is not None else None


def _special_ids(config: Any) -> set[int]:
    """Every id that some config calls `..._token_id`: begin, end, padding, image borders."""
    found: set[int] = set()
    for part in (config, getattr(config, "text_config", None)):
        for name in dir(part) if part is not None else ():
            if name.endswith(("_token_id", "_token_index")):
                value = getattr(part, name, None)
                found |= (
                    {value}
                    if isinstance(value, int)
                    else set(value or ())
                    if isinstance(value, list)
                    else set()
                )
    return found


def _template(processor: Any) -> tuple[str, str]:
    """The chat template's text right before and after a user's words, white space removed; empty without one."""
    if getattr(processor, "chat_template", None) is None:
        return "", ""
    marked = ""
    for content in ([{"type": "text", "text": _MARK}], _MARK):
        try:
            message = [{"role": "user", "content": content}]
            marked = processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        except (
            Exception
        ):  # templates are programs of their authors: any error means "cannot render this form"
            continue
        if _MARK in marked:
            break
    before, found, after = _squeeze(marked).partition(_MARK)
    return (_last_header(before), after) if found else ("", "")


def _last_header(before: str) -> str:
    """Keep what opens the turn itself: a system prompt in front of it is not repeated in later turns."""
    return before[-12:]


def _squeeze(text: str) -> str:
    return "".join(text.split())
