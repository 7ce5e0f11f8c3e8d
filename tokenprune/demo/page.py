"""The page: a column of inputs on the left, three tabs on the right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio import themes

from .compare_tab import compare_tab
from .inputs import input_column
from .results_tab import results_tab
from .site import Site, session_of
from .sweep_tab import sweep_tab

TITLE = "tokenprune"
CSS = Path(__file__).with_name("page.css")
JS = Path(__file__).with_name("page.js")
CACHE = (3600, 7200)
"""Seconds between two cleanings of what visitors uploaded and were shown, and the age at which it goes."""
HEAD = f"""<header class="tp-header"><h1>{TITLE}</h1>
<p>The same answers from fewer visual tokens: compare methods on your own picture, page or clip.</p></header>"""


def build_page(site: Site) -> gr.Blocks:
    """The whole app, not yet served."""
    with gr.Blocks(title=TITLE, fill_width=True, analytics_enabled=False, delete_cache=CACHE) as page:
        gr.HTML(HEAD)
        with gr.Row(elem_id="tp-main", equal_height=False):
            inputs = input_column(site)
            with gr.Column(scale=9, min_width=320, elem_id="tp-work"), gr.Tabs(elem_id="tp-tabs"):
                with gr.Tab("Compare", id="compare") as compare:
                    compare_tab(site, inputs)
                with gr.Tab("Sweep", id="sweep") as sweep:
                    sweep_tab(site, inputs)
                with gr.Tab("Results", id="results") as results:
                    look, run = results_tab(site)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        for tab, asks in ((compare, True), (sweep, True), (results, False)):
            tab.select(lambda asks=asks: gr.Column(visible=asks), None, inputs.column, queue=False, **quiet)
        results.select(look, run, run, **quiet)
        page.unload(_leave(site))
    return page.queue(max_size=128, api_open=False)


def _leave(site: Site) -> Any:
    def leave(request: gr.Request) -> None:
        """Nobody waits for what a closed page asked."""
        site.sessions.stop(session_of(request))

    return leave


def theme() -> themes.Base:
    """Quiet greys, amber for what was kept, as in the drawings; the system's own fonts, so nothing is fetched."""
    amber = themes.Color(
        "#fff8eb", "#ffeecb", "#ffe2a6", "#ffd075", "#ffbe45", "#ffb020", "#d98e06", "#a86b03", "#7a4e06", "#573906",
        "#38250a",
    )  # fmt: skip
    look = themes.Base(
        primary_hue=amber, secondary_hue=amber, neutral_hue=themes.colors.slate,
        font=["ui-sans-serif", "sans-serif"], font_mono=["ui-monospace", "monospace"],
        radius_size=themes.sizes.radius_md, spacing_size=themes.sizes.spacing_md,
    )  # fmt: skip
    return look.set(
        button_primary_background_fill="*primary_500", button_primary_background_fill_hover="*primary_400",
        button_primary_background_fill_dark="*primary_500", button_primary_text_color="#1c2028",
        button_primary_text_color_dark="#1c2028", button_primary_background_fill_hover_dark="*primary_400",
        slider_color="*primary_600", slider_color_dark="*primary_500", block_shadow="none",
        block_label_text_size="*text_sm", block_border_width="1px",
    )  # fmt: skip
