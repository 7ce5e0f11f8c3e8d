"""The run itself: every example under every setting, then the clock. Returns data, prints nothing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..bench.generation import DECODED, Times, time_generation
from ..bench.machine import machine, versions
from ..bench.timer import Ratio, abba, clock_for, quiet
from ..chat import Chat, Medium
from ..errors import InputError, TokenPruneError
from ..eval.medium import grey
from ..media import Clip
from ..patching import patch_model
from ..tokens import PruneReport
from .examples import Example
from .result import BLIND, NONE, Answer, Comparison, Speed, same
from .settings import Setting

log = logging.getLogger(__name__)

Tick = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is being done)."""

Told = tuple[list[int], PruneReport | None]
"""Generated tokens, and the report of that very run where the model was pruned."""

TIMED = 2
"""Examples on which settings are timed: the first of so many different pictures."""


def compare(
    chat: Chat,
    examples: Sequence[Example],
    settings: Sequence[Setting],
    *,
    max_new_tokens: int = 32,
    repeats: int = 2,
    threads: int = 1,
    tick: Tick | None = None,
) -> Comparison:
    """Answer every example unpruned, blind and under every setting; then time the settings on the first few.

    repeats: A B B A quads per setting and timed example (A = unpruned, B = pruned); 0 leaves the clock out.
    threads: torch threads of the whole run; more than one makes times on shared cores unreliable.
    A setting or picture that fails is recorded as failed and the run goes on; `TokenPruneError` when all settings do.
    """
    if not examples:
        raise InputError("no picture and question to compare on")
    timed = _timed(examples) if repeats > 0 else []
    step = _Steps(len(examples) * (2 + len(settings)) + len(timed) * len(settings) * max(repeats, 0), tick)
    device = torch.device(chat.device)
    out = Comparison(
        model={
            "name": chat.name,
            "version": chat.version,
            "class": type(chat.model).__name__,
            "parameters": sum(p.numel() for p in chat.model.parameters()),
            "dtype": str(chat.model.dtype).removeprefix("torch."),
            "device": device.type,
            "chat_template": chat.templated,
        },
        protocol={
            "max_new_tokens": max_new_tokens,
            "decoding": "greedy, batch 1",
            "repeats": repeats,
            "order": "A B B A, A = unpruned, B = pruned, one process",
            "timed_examples": timed,
            "decoded_tokens": DECODED,
            "clock": clock_for(device, threads)[1],
            "prefill": "from the call of generate to the first token: vision tower, selection and prompt",
            "decode": "mean gap between generated tokens after the first",
        },
        versions=versions(),
        machine={},
        examples=list(examples),
        settings=list(settings),
    )
    with quiet(threads):
        out.machine = machine(device)
        for index, example in enumerate(examples):
            _answer_all(chat, out, index, example, max_new_tokens, step)
        failed = [a.error for a in out.answers if a.error and a.method not in (NONE, BLIND)]
        if len(failed) == len(examples) * len(settings):
            raise TokenPruneError(failed[0])
        for setting in settings:
            if all(a.error for a in out.answers if (a.method, a.keep) == (setting.method, setting.keep)):
                step(len(timed) * repeats, f"{setting.method} {setting.label}")
            elif timed:
                out.speeds[setting] = _time(chat, out, setting, timed, repeats, step)
    return out


@dataclass
class _Steps:
    total: int
    tick: Tick | None
    done: int = 0

    def __call__(self, count: int, what: str) -> None:
        self.done += count
        if self.tick is not None:
            self.tick(self.done, self.total, what)


def _timed(examples: Sequence[Example]) -> list[int]:
    first: dict[str, int] = {}
    for index, example in enumerate(examples):
        first.setdefault(example.picture.name, index)
    return list(first.values())[:TIMED]


@contextlib.contextmanager
def patched(chat: Chat, setting: Setting) -> Iterator[Any]:
    """The model pruned as `setting` says, inside the block only."""
    with patch_model(chat.model, setting.reducer(), chat.processor) as handle:
        yield handle


def _answer_all(
    chat: Chat, out: Comparison, index: int, example: Example, max_new_tokens: int, step: _Steps
) -> None:
    def attempt(method: str, keep: float | int | None, ask: Callable[[], Told]) -> Answer:
        answer = Answer(index, method, keep)
        try:
            answer.tokens, answer.report = ask()
            answer.text = chat.text([answer.tokens])[0]
            if answer.report is not None and answer.report.fixation is not None:
                answer.written = chat.text([answer.tokens[: n + 1] for n in range(len(answer.tokens))])
        except Exception as error:  # one sample must not end a run of many; the message is in the results
            log.debug("%s %s failed on %s", method, keep, example.picture.name, exc_info=True)
            known = isinstance(error, TokenPruneError)
            answer.error = str(error) if known else f"{type(error).__name__}: {error}"
        if answer.error is None:
            if example.expected is not None:
                answer.correct = same(answer.text, example.expected)
            if base is not None and base.error is None:
                answer.agrees = same(answer.text, base.text)
        out.answers.append(answer)
        return answer

    what = f"{example.picture.name}: {example.question}"
    base: Answer | None = None
    picture = example.picture.load()
    out.boxes.append(chat.visible_box(picture))
    inputs = chat.inputs(picture, example.question)
    base = attempt(NONE, None, lambda: (chat.generate(inputs, max_new_tokens)[0], None))
    if base.error is not None:
        raise InputError(f"{chat.name} fails on {example.picture.name} without any pruning: {base.error}")
    step(1, what)
    attempt(BLIND, None, lambda: (_blind(chat, out, picture, example.question, max_new_tokens), None))
    step(1, what)
    for setting in out.settings:

        def ask(setting: Setting = setting) -> Told:
            with patched(chat, setting) as handle:
                tokens = chat.generate(inputs, max_new_tokens)[0]
                return tokens, handle.report

        attempt(setting.method, setting.keep, ask)
        step(1, what)


def _blind(chat: Chat, out: Comparison, medium: Medium, question: str, max_new_tokens: int) -> list[int]:
    """What can be answered without looking: the same prompt with the image or clip left out of it.

    A processor that refuses a question without a picture gets one of even grey instead; `protocol.blind` says which.
    """
    short, long = ("clip", "clip") if isinstance(medium, Clip) else ("image", "picture")
    try:
        inputs = chat.inputs(None, question)
        out.protocol.setdefault("blind", f"text only: the same prompt without the {short}")
    except InputError:
        inputs = chat.inputs(grey(medium), question)
        out.protocol["blind"] = f"an even grey {long} (the processor takes no question without one)"
    return chat.generate(inputs, max_new_tokens)[0]


def _time(
    chat: Chat, out: Comparison, setting: Setting, timed: Sequence[int], repeats: int, step: _Steps
) -> Speed:
    pairs: list[Pair] = []
    for index in timed:
        example = out.examples[index]
        inputs = chat.inputs(example.picture.load(), example.question)

        def tick() -> None:
            step(1, f"timing {setting.method} {setting.label}")

        pairs += side_by_side(chat, inputs, lambda: patched(chat, setting), repeats, tick)
    return speed_of(pairs)


Pair = tuple[Times, Times]
"""What the unpruned and the pruned model took, measured next to each other."""


def side_by_side(
    chat: Chat,
    inputs: dict[str, Any],
    patch: Callable[[], contextlib.AbstractContextManager[Any]],
    repeats: int,
    tick: Callable[[], None] | None = None,
) -> list[Pair]:
    """`repeats` quads in the order A B B A: A unpruned, B inside the block of `patch()`."""

    def cut() -> Times:
        with patch():  # patching and removing are outside what is timed
            return time_generation(chat.model, inputs)

    def whole() -> Times:
        return time_generation(chat.model, inputs)

    whole()  # the first call pays for what is set up once
    pairs: list[Pair] = []
    for _ in range(repeats):
        pairs += zip(*abba(whole, cut, 1), strict=True)
        if tick is not None:
            tick()
    return pairs


def speed_of(pairs: Sequence[Pair]) -> Speed:
    """Times of the pruned model as shares of the unpruned one's."""
    return Speed(
        Ratio.of([pruned.prefill for _, pruned in pairs], [plain.prefill for plain, _ in pairs]),
        Ratio.of([pruned.decode for _, pruned in pairs], [plain.decode for plain, _ in pairs]),
    )
