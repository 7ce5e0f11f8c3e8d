"""The Results tab: runs of the benchmark, their curves, and every sample that a row changed."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image

from ..chat import Chat, Medium
from ..compare.result import Answer
from ..errors import InputError
from ..eval.answer import Answerer
from ..eval.plots import prefill_figure, tokens_figure
from ..eval.report import interval_text, keep_text, percent
from ..eval.rows import NONE
from . import cards
from .desk import Cancelled, Job, Put, Waiting
from .drawings import KEPT, pair, strip, views
from .live import Answered, held
from .runs import FLIPS, PAGE, SHOW, Run
from .site import TOGETHER, Site, failure, status, waiting
from .words import marked

ROWS = (
    "method",
    "keep",
    "tokens",
    "score",
    "against unpruned",
    "agrees %",
    "lost",
    "gained",
    "failed",
    "verdict",
)
SAMPLES = ("sample", "kind", "question", "right answer", "A", "B", "change")
ANY = "any kind"


def results_tab(site: Site) -> Any:
    """Build the tab and connect it; returns what looks for runs anew, for the page's load."""
    hint = (
        "no folder of runs here: `tokenprune eval scenes` writes one to out/eval, and --runs names another"
        if not site.runs.names()
        else ""
    )
    with gr.Row(equal_height=False):
        run = gr.Dropdown(
            site.runs.names(), value=None, label="run", elem_id="tp-run", scale=4, filterable=True
        )
        again = gr.Button("look again", scale=0, min_width=150, elem_id="tp-again")
    line = gr.HTML(status(hint or "Choose a run."), elem_id="tp-results-line")
    with gr.Column(visible=False) as body:
        rows = gr.Dataframe(
            headers=list(ROWS), datatype="str", interactive=False, show_search="filter", label="rows",
            max_height=420, elem_id="tp-rows", buttons=["copy", "fullscreen"],
        )  # fmt: skip
        labels = gr.Dropdown([], multiselect=True, label="methods in the curves", elem_id="tp-labels")
        with gr.Row():
            tokens = gr.Plot(show_label=False, elem_id="tp-curve", min_width=320)
            prefill = gr.Plot(show_label=False, elem_id="tp-prefill", min_width=320)
        gr.Markdown("### Sample by sample")
        with gr.Row():
            a = gr.Dropdown([], label="row A", elem_id="tp-row-a", min_width=200)
            b = gr.Dropdown([], label="row B", elem_id="tp-row-b", min_width=200)
            show = gr.Dropdown(list(SHOW), value=FLIPS, label="show", elem_id="tp-show", min_width=120)
            kind = gr.Dropdown([ANY], value=ANY, label="kind of question", elem_id="tp-kinds", min_width=120)
        samples = gr.Dataframe(
            headers=list(SAMPLES), datatype="str", interactive=False, show_search="search", wrap=True,
            max_height=420, label="samples: choose one", elem_id="tp-samples",
        )  # fmt: skip
        detail = gr.HTML(elem_id="tp-detail")
        with gr.Row():
            drawn_a = gr.ImageSlider(
                visible=False,
                interactive=False,
                type="pil",
                label="A",
                slider_position=0,
                elem_id="tp-drawn-a",
            )
            drawn_b = gr.ImageSlider(
                visible=False,
                interactive=False,
                type="pil",
                label="B",
                slider_position=0,
                elem_id="tp-drawn-b",
            )
        film = gr.Image(visible=False, interactive=False, label="what was kept", elem_id="tp-drawn-film")

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def look(current: str | None) -> Any:
        names = site.runs.names()
        return gr.Dropdown(names, value=current if current in names else None)

    def open_run(name: str | None) -> dict[Any, Any]:
        if not name:
            return {body: gr.Column(visible=False)}
        try:
            found = site.runs.open(name)
        except Exception as error:
            said, message = failure(error)
            gr.Warning(message.message, title="This run cannot be read")
            return {line: said, body: gr.Column(visible=False)}
        curves = [r["label"] for r in found.results.rows if r["keep"] is not None and r.get("score")]
        curves = list(dict.fromkeys(curves))
        keys = [(_row_name(r), key) for key, r in found.rows.items()]
        second = next((key for _, key in keys if found.rows[key]["methods"]), keys[-1][1])
        kinds = sorted({s["kind"] for s in found.samples if s["kind"]})
        return {
            line: status(_about(found)), body: gr.Column(visible=True), rows: _table(found),
            labels: gr.Dropdown(curves, value=curves[:8]), a: gr.Dropdown(keys, value=NONE),
            b: gr.Dropdown(keys, value=second), kind: gr.Dropdown([ANY, *kinds], value=ANY),
            prefill: _figure(prefill_figure(found.results.body)), detail: "",
        }  # fmt: skip

    def draw_curves(name: str | None, chosen: list[str]) -> Any:
        return _figure(tokens_figure(site.runs.open(name).results.body, chosen)) if name else None

    def list_samples(name: str | None, one: str, two: str, wanted: str, of: str) -> list[list[str]]:
        if not name or not one or not two:
            return []
        pairs = site.runs.open(name).pairs(one, two, wanted, None if of == ANY else of)
        return [
            [p.sample["id"], p.sample["kind"] or "", p.sample["question"], " / ".join(p.sample["answers"][:2]),
             _said(p.a), _said(p.b), p.change]
            for p in pairs[:PAGE]
        ]  # fmt: skip

    def pick(
        request: gr.Request, event: gr.SelectData, name: str, one: str, two: str
    ) -> Iterator[dict[Any, Any]]:
        try:
            found = site.runs.open(name)
            yield from _sample(site, request, found, str(event.row_value[0]), one, two, parts)
        except Cancelled:
            return
        except Exception as error:
            said, message = failure(error)
            yield {line: said}
            raise message from None

    parts = {"line": line, "detail": detail, "a": drawn_a, "b": drawn_b, "film": film}
    again.click(look, run, run, **quiet)
    opened = run.change(
        open_run, run, [line, body, rows, labels, a, b, kind, prefill, detail], show_progress="minimal",
        api_name="results",
    )  # fmt: skip
    opened.then(draw_curves, [run, labels], tokens, **quiet)
    opened.then(list_samples, [run, a, b, show, kind], samples, **quiet)
    labels.input(draw_curves, [run, labels], tokens, **quiet)
    for control in (a, b, show, kind):
        control.input(list_samples, [run, a, b, show, kind], samples, **quiet)
    samples.select(
        pick, [run, a, b], list(parts.values()), trigger_mode="multiple", concurrency_limit=TOGETHER, **quiet
    )
    return look, run


def _sample(
    site: Site, request: gr.Request, run: Run, sample_id: str, one: str, two: str, parts: dict[str, Any]
) -> Iterator[dict[Any, Any]]:
    """The stored answers at once; then the same two rows asked again, for what they looked at."""
    sample = next((s for s in run.samples if s["id"] == sample_id), None)
    if sample is None:
        raise InputError(f"no sample {sample_id!r} in this run")
    yield {
        parts["detail"]: _detail(run, sample, one, two), parts["a"]: gr.ImageSlider(visible=False),
        parts["b"]: gr.ImageSlider(visible=False), parts["film"]: gr.Image(visible=False),
    }  # fmt: skip
    medium = site.runs.medium(run, sample)
    model = run.facts["model"]["name"]
    if model not in site.shelf.names:
        shown = {}
        if isinstance(whole := held(medium), Image.Image):
            shown[parts["a"]] = gr.ImageSlider((whole, whole), visible=True)
        yield {**shown, parts["line"]: status(f"start the demo with --model {model} to see what was kept")}
        return

    def work(chat: Chat, put: Put, job: Job) -> None:
        for place, key in enumerate((one, two)):
            job.check()
            put(Answered(place, _again(chat, run, key, medium, sample["question"])))
        put(chat.visible_box(medium))

    answers: dict[int, Answer] = {}
    box = None
    for news in site.serve(request, model, work):
        if isinstance(news, Waiting):
            yield {parts["line"]: waiting(news, model)}
        elif isinstance(news, Answered):
            answers[news.place] = news.answer
        else:
            box = news
    yield {parts["line"]: status(_about(run)), **_drawn(held(medium), answers, box, parts)}


def _again(chat: Chat, run: Run, key: str, medium: Medium, question: str) -> Answer:
    """One row's answer to one sample, with the report that a run does not store."""
    row, limit = run.row(key), run.facts["protocol"]["max_new_tokens"]
    out = Answer(0, row.label, row.keep)
    with Answerer(chat, limit).prepared(row, [medium], [question]) as (inputs, handle):
        out.tokens = chat.generate(inputs, limit)[0]
        out.report = None if handle is None else handle.report
    out.text = chat.text([out.tokens])[0]
    if out.report is not None and out.report.fixation is not None:
        out.written = chat.text([out.tokens[: n + 1] for n in range(len(out.tokens))])
    return out


def _drawn(medium: Medium, answers: dict[int, Answer], box: Any, parts: dict[str, Any]) -> dict[Any, Any]:
    if not isinstance(medium, Image.Image):
        page = strip(medium, [answers[0], answers[1]], box)
        return {parts["film"]: gr.Image(page, visible=page is not None)}
    out = {}
    for place, name in enumerate(("a", "b")):
        answer = answers[place]
        whole = KEPT not in views(medium, answer)
        both = (medium, medium) if whole else pair(medium, answer, KEPT, box)
        out[parts[name]] = gr.ImageSlider(both, visible=True, label=f"{name.upper()}: {answer.text[:60]}")
    return out


def _detail(run: Run, sample: dict[str, Any], one: str, two: str) -> str:
    said = [_said(run.records.get((key, sample["id"]), {})) for key in (one, two)]
    right = html.escape(" / ".join(sample["answers"])) or "not known"
    names = [html.escape(_row_name(run.rows[key])) for key in (one, two)]
    return (
        f'<div class="tp-card"><p class="tp-answer">{html.escape(sample["question"])}</p>'
        f'<dl class="tp-facts"><dt>right answer</dt><dd>{right}</dd><dt>A · {names[0]}</dt>'
        f"<dd>{cards.lines(said[0])}</dd><dt>B · {names[1]}</dt><dd>{marked(said[1], said[0])}</dd></dl></div>"
    )


def _said(record: dict[str, Any]) -> str:
    return f"failed: {record['error']}" if "error" in record else record.get("text", "not asked")


def _row_name(row: dict[str, Any]) -> str:
    seed = "" if row["seed"] is None else f", seed {row['seed']}"
    return f"{row['label']} {keep_text(row['keep'])}".strip() + seed


def _about(run: Run) -> str:
    body = run.results.body
    model, suite = body["model"], body["suite"]
    subset = ", a subset" if suite["subset"] else ""
    name = " ".join(filter(None, [model["name"], model["version"]]))
    return f"{name} on {suite['name']}: {suite['samples']} samples{subset}, metric {suite['metric']}"


def _table(run: Run) -> list[list[str]]:
    out = []
    for r in run.results.rows:
        tokens = r.get("tokens")
        out.append([
            r["label"], keep_text(r["keep"]), f"{tokens['equivalent']:.1f}" if tokens else r["state"],
            interval_text(r.get("score")), interval_text(r.get("difference"), signed=True),
            percent(r.get("agreement")), str(r.get("lost", "")), str(r.get("gained", "")),
            str(r["failed"] or ""), str(r.get("verdict", "")),
        ])  # fmt: skip
    return out


def _figure(figure: Any) -> Any:
    return gr.Plot(figure, visible=figure is not None)
