"""The Compare tab: one question, the whole model, and two to four methods beside each other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from ..chat import Chat
from ..media import Clip
from ..methods import Reducer
from . import cards
from .controls import Chooser, chooser
from .desk import Cancelled, Job, Put, Waiting
from .drawings import GAZE, STEPS, gaze, pair, strip, views
from .fields import build
from .inputs import CLIP, Asked, Inputs
from .live import Answered, Round, Said, Timed, ask_all, check_methods
from .site import TOGETHER, Site, failure, session_of, status, waiting
from .snippet import lines_of

START = (("flashvlm", 25.0), ("visionzip", 25.0), ("random", 25.0), ("pool", 25.0))
LEAST, MOST = 2, 4
PAUSE = 0.08
"""Seconds between two updates of a growing answer."""
COPY = """(code) => {
  const say = (t) => { const b = document.querySelector('#tp-copy'); if (b) b.textContent = t; };
  const done = () => { say('copied'); setTimeout(() => say('copy as Python'), 1600); };
  if (navigator.clipboard && window.isSecureContext) { navigator.clipboard.writeText(code).then(done); return; }
  const area = document.createElement('textarea');
  area.value = code; document.body.appendChild(area); area.select();
  document.execCommand('copy'); area.remove(); done();
}"""


@dataclass(frozen=True)
class Card:
    """One method's place on the page."""

    column: Any
    chooser: Chooser
    head: Any
    view: Any
    pair: Any
    moving: Any


def compare_tab(site: Site, inputs: Inputs) -> None:
    """Build the tab and connect it."""
    with gr.Row(elem_classes="tp-actions"):
        go = gr.Button("Compare", variant="primary", elem_id="tp-go", scale=2, min_width=140)
        stop = gr.Button("Stop", elem_id="tp-stop", scale=0, min_width=90)
        count = gr.Radio(
            [("2 methods", 2), ("3", 3), ("4", 4)],
            value=LEAST,
            label="methods side by side",
            show_label=False,
            container=False,
            elem_id="tp-count",
            scale=0,
            min_width=270,
        )
        timed = gr.Checkbox(
            True, label="measure times", elem_id="tp-timed", scale=0, min_width=160, container=False
        )
    line = gr.HTML(status("Pick or upload something, ask, and compare."), elem_id="tp-line")
    base = gr.HTML(cards.EMPTY, elem_id="tp-base")
    with gr.Row(elem_id="tp-cards", equal_height=False):
        shown = [_card(place, *start) for place, start in enumerate(START, 1)]
    film = gr.Image(
        visible=False, label="what was kept of every step of the clip", interactive=False, elem_id="tp-film",
        buttons=["fullscreen", "download"], format="png",
    )  # fmt: skip
    with gr.Row(elem_classes="tp-actions"):
        copy = gr.Button("copy as Python", elem_id="tp-copy", size="sm", scale=0, min_width=150)
    with gr.Accordion("the same in Python", open=False):
        code = gr.Code("", language="python", show_label=False, elem_id="tp-code", buttons=["copy"])
    state = gr.State(None, time_to_live=3600)

    page = _Page(site, line, base, shown, film, code, state)
    given = [*inputs.all, count, timed]
    for card in shown:
        given += [card.chooser.method, card.chooser.percent, card.chooser.given]
    triggers = [go.click, inputs.question.submit]
    gr.on(
        triggers, page.ask, given, page.all, show_progress="hidden", trigger_mode="multiple",
        concurrency_limit=TOGETHER, api_name="compare",
    )  # fmt: skip

    def halt(request: gr.Request) -> str:
        site.sessions.stop(session_of(request))
        return status("stopped")

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    stop.click(halt, None, line, queue=False, **quiet)
    count.change(
        lambda n: [gr.Column(visible=place < n) for place in range(MOST)], count,
        [card.column for card in shown], **quiet,
    )  # fmt: skip
    copy.click(None, code, None, js=COPY, api_visibility="private")
    for place, card in enumerate(shown, 1):
        card.view.input(
            lambda view, found, place=place: page.redraw(view, found, place), [card.view, state],
            [card.pair, card.moving], **quiet,
        )  # fmt: skip


def _card(place: int, method: str, percent: float) -> Card:
    with gr.Column(
        visible=place <= LEAST, min_width=250, elem_classes="tp-method", elem_id=f"tp-card-{place}"
    ) as column:
        controls = chooser(method, place, percent)
        head = gr.HTML(cards.EMPTY, elem_id=f"tp-head-{place}")
        view = gr.Radio(
            [], visible=False, show_label=False, container=False, elem_id=f"tp-view-{place}",
            elem_classes="tp-view",
        )  # fmt: skip
        images = gr.ImageSlider(
            visible=False, show_label=False, interactive=False, type="pil", format="webp", slider_position=0,
            buttons=["fullscreen"], elem_id=f"tp-pair-{place}", label="full picture and view",
        )  # fmt: skip
        moving = gr.HTML(visible=False, elem_id=f"tp-moving-{place}")
    return Card(column, controls, head, view, images, moving)


class _Page:
    """What the handlers know of the tab's components."""

    def __init__(
        self, site: Site, line: Any, base: Any, shown: list[Card], film: Any, code: Any, state: Any
    ) -> None:
        self.site, self.line, self.base, self.cards = site, line, base, shown
        self.film, self.code, self.state = film, code, state

    @property
    def all(self) -> list[Any]:
        out = [self.line, self.base, self.film, self.code, self.state]
        for card in self.cards:
            out += [card.head, card.view, card.pair, card.moving]
        return out

    def ask(self, request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        """Answer with the whole model and with every method in turn; the page grows while they write."""
        asked, (count, timed, *rest) = Asked(*values[:7]), values[7:]
        try:
            methods = [build(*rest[3 * i : 3 * i + 3]) for i in range(int(count))]
            check_methods(methods)
            medium, question = asked.take(self.site)
            yield self._blank(status(f"asking {asked.model} …", "busy"))

            def work(chat: Chat, put: Put, job: Job) -> None:
                ask_all(
                    chat, medium, question, methods, put, job, max_new_tokens=int(asked.longest),
                    repeats=1 if timed else 0,
                )  # fmt: skip

            yield from self._follow(self.site.serve(request, asked.model, work), asked, methods, bool(timed))
        except Cancelled:
            return
        except Exception as error:
            said, message = failure(error)
            yield {self.line: said}
            raise message from None

    def _follow(
        self, stream: Iterator[Any], asked: Asked, methods: list[Reducer], timed: bool
    ) -> Iterator[dict[Any, Any]]:
        found: Round | None = None
        pending: dict[Any, Any] = {}
        last, due = 0.0, len(methods) if timed else 0
        for news in stream:
            if isinstance(news, Waiting):
                yield {self.line: waiting(news, asked.model)}
                continue
            if isinstance(news, Round):
                found = news
                continue
            assert found is not None
            found.take(news)
            pending |= self._told(found, news, timed)
            due -= isinstance(news, Timed)
            if isinstance(news, Said) and time.monotonic() - last < PAUSE:
                continue
            yield pending
            pending, last = {}, time.monotonic()
        assert found is not None
        pending |= {
            self.line: self._summary(found),
            self.state: found,
            self.code: self._lines(found, asked),
        }
        yield pending

    def _told(self, found: Round, news: Any, timed: bool) -> dict[Any, Any]:
        """What one piece of news changes on the page."""
        name = "unpruned" if news.place == 0 else found.methods[news.place - 1].name
        if isinstance(news, Said):
            target = self.base if news.place == 0 else self.cards[news.place - 1].head
            return {target: cards.saying(news.text), self.line: status(f"{name} is writing …", "busy")}
        out: dict[Any, Any] = {self.base: cards.base_card(found)}
        if news.place == 0:
            return out
        card = self.cards[news.place - 1]
        out[card.head] = cards.method_card(found, news.place, waiting=timed)
        if isinstance(news, Timed):
            return {**out, self.line: status(f"measuring: {name} done", "busy")}
        if isinstance(news, Answered):
            if timed and news.place == len(found.methods):
                out[self.line] = status("measuring times, unpruned and pruned in turn …", "busy")
            choices = views(found.medium, news.answer)
            out[card.view] = gr.Radio(
                choices, value=choices[0] if choices else None, visible=len(choices) > 1
            )
            out[card.pair], out[card.moving] = self.redraw(choices[0] if choices else None, found, news.place)
            if isinstance(found.medium, Clip):
                told = [found.answers[i] for i in sorted(found.answers) if i]
                page = strip(found.medium, told, found.box)
                out[self.film] = gr.Image(page, visible=page is not None)
        return out

    def redraw(self, view: str | None, found: Round | None, place: int) -> tuple[Any, Any]:
        """(the slider, the animation): one of them, as the view says."""
        answer = None if found is None else found.answers.get(place)
        if not view or found is None or answer is None:
            return gr.ImageSlider(visible=False), gr.HTML(visible=False)
        if view in (GAZE, STEPS):
            moving = gaze(found.medium, answer, view, found.box, found.question)
            return gr.ImageSlider(visible=False), gr.HTML(moving, visible=True)
        assert isinstance(found.medium, Image.Image)
        both = pair(found.medium, answer, view, found.box)
        return gr.ImageSlider(both, visible=True), gr.HTML(visible=False)

    def _blank(self, line: str) -> dict[Any, Any]:
        out: dict[Any, Any] = {
            self.line: line, self.base: cards.EMPTY, self.film: gr.Image(visible=False), self.code: "",
        }  # fmt: skip
        for card in self.cards:
            out |= {
                card.head: cards.EMPTY,
                card.view: gr.Radio(visible=False),
                card.pair: gr.ImageSlider(visible=False),
                card.moving: gr.HTML(visible=False),
            }
        return out

    def _summary(self, found: Round) -> str:
        good = [a for place, a in found.answers.items() if place and a.error is None]
        agree = sum(bool(a.agrees) for a in good)
        failed = len(found.methods) - len(good)
        more = f", {failed} could not" if failed else ""
        return status(
            f"{agree} of {len(found.methods)} methods say the same as the unpruned {found.model}{more}"
        )

    def _lines(self, found: Round, asked: Asked) -> str:
        loading = self.site.shelf.loading
        usual = {"device": "cpu", "dtype": "auto"}
        options = {k: v for k, v in vars(loading).items() if k in usual and v != usual[k]}
        frames = int(asked.frames) if asked.kind == CLIP else None
        return lines_of(
            asked.model, asked.file, found.question, found.methods, frames=frames,
            max_new_tokens=int(asked.longest), options=options,
        )  # fmt: skip
