"""A method with its budget, and a form made from the fields of its dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..errors import TokenPruneError
from ..methods import list_methods, method_class
from .fields import Field, check, fields_of
from .site import failure


@dataclass(frozen=True)
class Chooser:
    """One method's controls. `given`: what was changed in its form."""

    method: Any
    given: Any
    percent: Any = None


def chooser(start: str, place: int, percent: float | None = None) -> Chooser:
    """Build the controls; without `percent` there is no keep slider."""
    method = gr.Dropdown(
        list_methods(), value=start, label=f"method {place}" if place else "method", filterable=True,
        info=_about(start), elem_id=f"tp-method-{place}",
    )  # fmt: skip
    slider = None
    if percent is not None:
        slider = gr.Slider(0.5, 100, percent, step=0.1, label="keep, % of tokens", elem_id=f"tp-keep-{place}")
    given = gr.State({})
    with gr.Accordion("hyper-parameters", open=False, elem_id=f"tp-hyper-{place}"):
        _form(method, given)
    method.change(
        lambda name: ({}, gr.Dropdown(info=_about(name))), method, [given, method], show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip
    return Chooser(method, given, slider)


def _about(name: str) -> str:
    return method_class(name).describe()


def _form(method: Any, given: Any) -> None:
    # One form at a time: gradio (6.31) loses its place when two forms of one page are made at once.
    @gr.render(inputs=[method], show_progress="hidden", concurrency_limit=1, concurrency_id="forms")
    def show(name: str) -> None:
        fields = fields_of(name)
        if not fields:
            gr.Markdown("none but keep")
        for field in fields:
            control = _control(field)

            def take(value: Any, values: dict[str, Any], field: Field = field) -> dict[str, Any]:
                values = {**values, field.name: value}
                try:
                    check(name, values)
                except TokenPruneError as error:
                    gr.Warning(failure(error)[1].message, title=f"{name} takes other numbers")
                return values

            control.change(take, [control, given], given, show_progress="hidden", api_visibility="private")


def _control(field: Field) -> Any:
    value = field.shown(field.default)
    if field.kind == "flag":
        return gr.Checkbox(value, label=field.name)
    if field.kind == "choice":
        return gr.Dropdown(list(field.choices), value=value, label=field.name)
    if field.kind == "text":
        return gr.Textbox(value, label=field.name, max_lines=1)
    precision = 0 if field.kind == "whole" else None
    empty = "none" if field.optional else None
    return gr.Number(value, label=field.name, precision=precision, placeholder=empty)
