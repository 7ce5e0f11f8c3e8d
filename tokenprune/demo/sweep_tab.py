"""The Sweep tab: one method with fewer and fewer tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ..chat import Chat
from ..compare.result import Answer
from ..compare.settings import parse_keeps
from ..methods import get_method
from . import cards
from .controls import chooser
from .desk import Cancelled, Job, Put, Waiting
from .drawings import sheet
from .fields import changed
from .inputs import Asked, Inputs
from .live import Answered, Round, Said, ask_all
from .site import TOGETHER, Site, failure, status, waiting
from .sweep import HEADS, KEEPS, curve, line_of

MOST = 16
"""Budgets of one sweep."""


def sweep_tab(site: Site, inputs: Inputs) -> None:
    """Build the tab and connect it."""
    with gr.Row(equal_height=False):
        with gr.Column(min_width=250):
            controls = chooser("flashvlm", 0)
        with gr.Column(min_width=250):
            keeps = gr.Textbox(
                KEEPS, label="budgets", info="shares (25%, 0.25) or counts of tokens (64)", elem_id="tp-keeps"
            )
            go = gr.Button("Sweep", variant="primary", elem_id="tp-sweep")
    line = gr.HTML(
        status("The same question under one method, from most of the tokens to few."), elem_id="tp-sweep-line"
    )
    base = gr.HTML(cards.EMPTY, elem_id="tp-sweep-base")
    plot = gr.Plot(visible=False, show_label=False, elem_id="tp-sweep-plot")
    table = gr.Dataframe(
        headers=list(HEADS), datatype="str", interactive=False, visible=False, wrap=True, show_label=False,
        elem_id="tp-sweep-table",
    )  # fmt: skip
    page = gr.Image(
        visible=False, show_label=False, interactive=False, elem_id="tp-sweep-page", format="png",
        buttons=["fullscreen", "download"],
    )  # fmt: skip

    def run(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        asked, (name, given, budgets) = Asked(*values[:7]), values[7:]
        try:
            chosen = parse_keeps(budgets or "")[:MOST]
            methods = [get_method(name, keep=keep, **changed(name, given)) for keep in chosen]
            medium, question = asked.take(site)
            yield {
                line: status(f"asking {asked.model} …", "busy"), base: cards.EMPTY,
                plot: gr.Plot(visible=False), page: gr.Image(visible=False),
                table: gr.Dataframe([], visible=False),
            }  # fmt: skip

            def work(chat: Chat, put: Put, job: Job) -> None:
                ask_all(chat, medium, question, methods, put, job, max_new_tokens=int(asked.longest))

            found: Round | None = None
            for news in site.serve(request, asked.model, work):
                if isinstance(news, Waiting):
                    yield {line: waiting(news, asked.model)}
                elif isinstance(news, Round):
                    found = news
                elif isinstance(news, Answered) and found is not None:
                    found.take(news)
                    told = f"{news.place} of {len(methods)} budgets …"
                    out: dict[Any, Any] = {line: status(told, "busy"), base: cards.base_card(found)}
                    if news.place:
                        out[table] = gr.Dataframe(_lines(found), visible=True)
                    yield out
                elif isinstance(news, Said) and news.place == 0:
                    yield {base: cards.saying(news.text)}
            assert found is not None
            yield {line: _summary(found), **_drawn(found)}
        except Cancelled:
            return
        except Exception as error:
            said, message = failure(error)
            yield {line: said}
            raise message from None

    def _drawn(found: Round) -> dict[Any, Any]:
        assert found.base is not None
        figure = curve(_pruned(found), found.base)
        drawn = sheet(found.medium, found.question, _pruned(found), found.box)
        return {
            plot: gr.Plot(figure, visible=figure is not None),
            page: gr.Image(drawn, visible=drawn is not None),
        }

    gr.on(
        [go.click], run, [*inputs.all, controls.method, controls.given, keeps],
        [line, base, plot, table, page], show_progress="hidden", trigger_mode="multiple",
        concurrency_limit=TOGETHER, api_name="sweep",
    )  # fmt: skip


def _pruned(found: Round) -> list[Answer]:
    return [found.answers[place] for place in sorted(found.answers) if place]


def _lines(found: Round) -> list[list[str]]:
    assert found.base is not None
    return [line_of(answer, found.base) for answer in _pruned(found)]


def _summary(found: Round) -> str:
    told = [a for a in _pruned(found) if a.error is None]
    good = [a for a in told if a.agrees]
    if not told:
        return status("no budget could be answered; the table says why", "bad")
    if len(good) == len(told):
        return status("every budget gives the unpruned answer")
    if not good:
        return status("no budget gives the unpruned answer")
    return status(f"{len(good)} of {len(told)} budgets give the unpruned answer")
