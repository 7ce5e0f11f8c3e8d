"""One batch under one row: from pictures or clips and questions to answers with their token counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..chat import Chat, Medium
from ..errors import InputError
from ..patching import PatchHandle, patch_model
from ..tokens import PruneReport
from .medium import grey
from .resize import Resizer
from .rows import BLIND, FRAMES, RESIZE, Row
from .sharing import Shared

TEXT_ONLY = "text only: the same prompt without the picture"
GREY = "an even grey picture, because the processor takes no question without one"


@dataclass(frozen=True)
class Answer:
    """What came out for one sample."""

    text: str
    generated: int  # tokens
    unfinished: bool  # max_new_tokens was reached
    text_tokens: int
    before: int  # visual tokens
    after: float  # that the last layer reads
    equivalent: float  # read on layer average
    kept: float  # in the cache on layer average
    sparse: float | None  # share of them that a layer which is not focal reads; None: no decode-stage method
    batch: int


class Answerer:
    """Answers batches under any row, one model at a time. `blind` says what the blind row sees."""

    def __init__(self, chat: Chat, max_new_tokens: int) -> None:
        self.chat, self.max_new_tokens = chat, max_new_tokens
        self.resizer = Resizer(chat)
        self.shared = Shared(chat, self.resizer.parts.composite)
        self.blind = ""

    def answer(self, row: Row, images: Sequence[Medium], questions: Sequence[str]) -> list[Answer]:
        """Answers in order. A batch that does not fit in memory is halved until it does, or a single one fails."""
        try:
            return self._answer(row, images, questions)
        except (RuntimeError, MemoryError) as error:
            if len(images) == 1 or not is_out_of_memory(error):
                raise
        _release()
        half = (len(images) + 1) // 2
        first = self.answer(row, images[:half], questions[:half])
        return first + self.answer(row, images[half:], questions[half:])

    def _answer(self, row: Row, images: Sequence[Medium], questions: Sequence[str]) -> list[Answer]:
        with self.prepared(row, images, questions) as (inputs, handle):
            rows = self.chat.generate(inputs, self.max_new_tokens)
            report = None if handle is None else handle.report
        texts = self.chat.text(rows)
        visual = self.resizer.visual(inputs)
        lengths = _lengths(inputs)
        out = []
        for i, text in enumerate(texts):
            seen = visual[i]
            out.append(
                Answer(
                    text=text,
                    generated=len(rows[i]),
                    unfinished=len(rows[i]) >= self.max_new_tokens,
                    text_tokens=lengths[i] - seen,
                    before=seen,
                    **tokens_left(report, i, seen),
                    batch=len(texts),
                )
            )
        return out

    @contextlib.contextmanager
    def prepared(
        self, row: Row, images: Sequence[Medium], questions: Sequence[str]
    ) -> Iterator[tuple[dict[str, Any], PatchHandle | None]]:
        """The model made ready for a row, and its inputs; generate inside the block."""
        self.shared.reuse, reducers = False, row.reducers()
        with contextlib.ExitStack() as stack:
            if row.label == RESIZE:
                assert row.keep is not None
                inputs = stack.enter_context(self.resizer.inputs(images, questions, row.keep))
            elif row.label == FRAMES:
                assert row.keep is not None
                inputs = self.resizer.fewer_frames(images, questions, row.keep)
            elif row.label == BLIND:
                inputs = self.blinded(images, questions)
            else:
                inputs = self.shared.inputs(images, questions)
                self.shared.allow(frozenset().union(*(r.needs for r in reducers)))
            handle = None
            if reducers:
                handle = stack.enter_context(patch_model(self.chat.model, reducers, self.chat.processor))
            yield inputs, handle

    def blinded(self, images: Sequence[Medium], questions: Sequence[str]) -> dict[str, Any]:
        """Inputs that show nothing of the pictures; `blind` then says what they show instead."""
        if self.blind != GREY:
            try:
                inputs = self.chat.inputs([None] * len(images), list(questions))
                self.blind = TEXT_ONLY
                return inputs
            except InputError:
                self.blind = GREY
        return self.chat.inputs([grey(image) for image in images], list(questions))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on an accelerator or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower()
        for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _release() -> None:
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _lengths(inputs: dict[str, Any]) -> list[int]:
    mask = inputs.get("attention_mask")
    if mask is None:
        return [inputs["input_ids"].shape[1]] * inputs["input_ids"].shape[0]
    return mask.sum(1).tolist()


def tokens_left(report: PruneReport | None, row: int, seen: int) -> dict[str, Any]:
    """What is left of one row's visual tokens: in the last layer, read and kept on layer average."""
    if report is None:
        return {"after": seen, "equivalent": seen, "kept": seen, "sparse": None}
    images = [i for i in report.images if i.row == row]
    layers, looks = max(len(report.physical), 1), report.fixation
    kept = sum(sum(i.per_layer) / layers for i in images)
    return {
        "after": sum(i.after for i in images),
        "equivalent": kept if looks is None else kept * looks.read_share,
        "kept": kept,
        "sparse": None if looks is None else looks.sparse_share,
    }
