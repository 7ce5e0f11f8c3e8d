"""Rows that can do without the tower share what it saw; no answer may change for it."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.eval.test_clips import film, reader  # noqa: F401
from tokenprune.eval.answer import Answerer
from tokenprune.eval.rows import BLIND, NONE, RESIZE, Row

QUESTIONS = ["what colour is the circle ?", "is the circle red ?"]


def row(name, **hyper):
    return Row(name, 0.25, methods=((name, json.dumps(hyper)),))


ROWS = [
    Row(NONE),
    row("uniform"),
    Row(BLIND),
    row("pool"),
    Row(RESIZE, 0.25),
    row("flashvlm"),
    row("divprune"),
]


@pytest.fixture(params=["pictures", "clips"])
def asked(request, chat, reader):  # noqa: F811
    if request.param == "clips":
        return reader, [film(8), film(4)]
    rng = np.random.default_rng(0)
    return chat, [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in QUESTIONS]


def test_answers_are_the_same_and_the_tower_runs_once_for_all_that_do_not_look_into_it(asked):
    chat, media = asked
    answerer = Answerer(chat, 3)
    tower, runs = answerer.resizer.parts.tower, []
    hook = tower.register_forward_hook(lambda *_: runs.append(1))
    methods = dict(answerer.resizer.parts.composite.__dict__)
    try:
        alone = [answerer.answer(r, media, QUESTIONS) for r in ROWS]
        assert len(runs) == len(ROWS) - (answerer.blind.startswith("text"))
        runs.clear()
        with answerer.shared.held():
            shared = [answerer.answer(r, media, QUESTIONS) for r in ROWS]
            assert len(runs) == 3 + (
                not answerer.blind.startswith("text")
            )  # for all, a small picture, flashvlm
            other = answerer.answer(ROWS[0], media[::-1], QUESTIONS)
            assert other == answerer.answer(ROWS[0], list(reversed(media)), QUESTIONS)
    finally:
        hook.remove()
    assert shared == alone
    assert other == Answerer(chat, 3).answer(ROWS[0], media[::-1], QUESTIONS)
    assert dict(answerer.resizer.parts.composite.__dict__).keys() == methods.keys()
