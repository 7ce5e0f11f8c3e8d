"""One question answered by the whole model and by pruned ones, word by word. Runs in a desk's own thread."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..chat import Chat, Medium
from ..compare.result import NONE, Answer, Speed, same
from ..compare.run import side_by_side, speed_of
from ..errors import InputError, TokenPruneError
from ..media import Clip, load_clip
from ..methods import Reducer
from ..patching import PatchHandle, patch_model
from ..viz.overlay import Box, fit
from .desk import Cancelled, Job, Put

log = logging.getLogger(__name__)

EDGE, FRAME_EDGE = 1000, 320
"""Pixels that the longer edge of a picture, and of a clip's frames, is held with for drawing."""


@dataclass(frozen=True)
class Said:
    """News: the answer so far, of the unpruned model (place 0) or of a method (from 1)."""

    place: int
    text: str


@dataclass(frozen=True)
class Answered:
    """News: an answer that is complete, or failed."""

    place: int
    answer: Answer


@dataclass(frozen=True)
class Timed:
    """News: what a method takes, as shares of the unpruned model's time."""

    place: int
    speed: Speed


@dataclass
class Round:
    """Everything one request found out; what its page draws from. Media are shrunk."""

    model: str
    question: str
    medium: Medium
    box: Box | None
    methods: list[Reducer]
    answers: dict[int, Answer] = field(default_factory=dict)  # place -> answer
    speeds: dict[int, Speed] = field(default_factory=dict)

    @property
    def base(self) -> Answer | None:
        """The unpruned answer, once it is there and did not fail."""
        return self.answers.get(0)

    def take(self, news: Any) -> None:
        """Write down what `ask_all` says."""
        if isinstance(news, Answered):
            self.answers[news.place] = news.answer
        elif isinstance(news, Timed):
            self.speeds[news.place] = news.speed


def ask_all(
    chat: Chat,
    medium: Medium,
    question: str,
    methods: Sequence[Reducer],
    put: Put,
    job: Job,
    *,
    max_new_tokens: int = 32,
    repeats: int = 0,
) -> None:
    """Puts `Round`, then `Said` and `Answered` for the unpruned model and every method in turn, then `Timed`.

    repeats: A B B A quads a method is timed with; 0: none. A method that fails is `Answered` with its error; where
    the unpruned model fails, everything does. The model is left unpatched, whatever happens.
    """
    put(Round(chat.name, question, held(medium), chat.visible_box(medium), list(methods)))
    inputs = chat.inputs(medium, question)
    base = Answer(0, NONE, None)
    base.tokens = generate(chat, inputs, max_new_tokens, put, job, 0)
    base.text = chat.text([base.tokens])[0]
    put(Answered(0, base))
    good = []
    for place, method in enumerate(methods, 1):
        answer = Answer(0, method.name, method.keep)
        try:
            with patched(chat, method) as handle:
                answer.tokens = generate(chat, inputs, max_new_tokens, put, job, place)
                answer.report = handle.report
            answer.text = chat.text([answer.tokens])[0]
            answer.agrees = same(answer.text, base.text)
            if answer.report is not None and answer.report.fixation is not None:
                answer.written = chat.text([answer.tokens[: n + 1] for n in range(len(answer.tokens))])
            good.append((place, method))
        except Cancelled:
            raise
        except Exception as error:  # one method must not take the others with it
            answer.error = said_of(error)
        put(Answered(place, answer))
    for place, method in good if repeats else ():

        @contextmanager
        def cut(method: Reducer = method) -> Iterator[PatchHandle]:
            job.check()
            with patched(chat, method) as handle:
                yield handle

        put(Timed(place, speed_of(side_by_side(chat, inputs, cut, repeats))))


@contextmanager
def patched(chat: Chat, method: Reducer | Sequence[Reducer]) -> Iterator[PatchHandle]:
    """The model pruned inside the block; put back bit for bit when it ends, however it ends."""
    handle = patch_model(chat.model, method, chat.processor)
    try:
        yield handle
    finally:
        handle.remove()


def generate(
    chat: Chat, inputs: dict[str, Any], max_new_tokens: int, put: Put, job: Job, place: int
) -> list[int]:
    """The greedy tokens, each put as `Said` when it comes; a cancelled job ends at the next one."""
    return chat.generate(inputs, max_new_tokens, streamer=_Teller(chat, put, job, place))[0]


class _Teller:
    """What `model.generate` hands tokens to: first the prompt, then each new one."""

    def __init__(self, chat: Chat, put: Put, job: Job, place: int) -> None:
        self.chat, self.say, self.job, self.place = chat, put, job, place
        self.tokens: list[int] = []
        self.begun = False

    def put(self, value: Any) -> None:
        self.job.check()
        if not self.begun:  # the prompt
            self.begun = True
            return
        self.tokens += value.flatten().tolist()
        self.say(Said(self.place, self.chat.text([self.tokens])[0]))

    def end(self) -> None:
        pass


def held(medium: Medium) -> Medium:
    """Small enough to be kept for drawing."""
    if isinstance(medium, Clip):
        return load_clip(medium, frames=len(medium.frames), size=FRAME_EDGE)
    return fit(medium, min(EDGE, max(medium.size))) if isinstance(medium, Image.Image) else medium


def said_of(error: BaseException) -> str:
    """What a page may say of an exception: our own messages whole, of others only that there was one."""
    if isinstance(error, TokenPruneError):
        return str(error)
    log.error("unexpected", exc_info=error)
    if "out of memory" in str(error).lower():
        return "out of memory: try a smaller picture, fewer frames or a shorter answer"
    return f"failed unexpectedly ({type(error).__name__}); the log of the server says more"


def check_methods(methods: Sequence[Reducer]) -> None:
    """Two to four, no two the same: what a page compares."""
    if len({repr(m) for m in methods}) < len(methods):
        raise InputError("two of the methods are the same with the same numbers; change one of them")
