"""The column on the left: what is asked about, the question, and which model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio import component_meta

from .. import zoo
from ..chat import WATCHES, Medium
from ..compare.examples import CLIP_QUESTION, QUESTION
from ..errors import TokenPruneError
from .site import Site, failure
from .uploads import take, take_clip, take_picture, take_question

PICTURE, CLIP = "picture", "clip"


@dataclass(frozen=True)
class Asked:
    """The column's values, in the order of `Inputs.all`."""

    model: str
    kind: str
    picture: str | None
    clip: str | None
    frames: int
    question: str
    longest: int

    def take(self, site: Site) -> tuple[Medium, str]:
        """The medium and the question, checked."""
        medium = take(self.kind, self.picture, self.clip, int(self.frames), site.limits)
        otherwise = CLIP_QUESTION if self.kind == CLIP else QUESTION
        return medium, take_question(self.question, otherwise, site.limits)

    @property
    def file(self) -> str:
        return (self.clip if self.kind == CLIP else self.picture) or ""


@dataclass(frozen=True)
class Inputs:
    """The column's components."""

    column: Any
    model: Any
    kind: Any
    picture: Any
    clip: Any
    frames: Any
    question: Any
    longest: Any

    @property
    def all(self) -> list[Any]:
        return [
            self.model, self.kind, self.picture, self.clip, self.frames, self.question, self.longest,
        ]  # fmt: skip


def _path(payload: Any) -> str | None:
    """An upload's place on this machine, unopened."""
    if payload is None:
        return None
    if not payload.path:
        raise gr.Error("a picture or clip is uploaded as a file", print_exception=False)
    return str(payload.path)


@contextlib.contextmanager
def _without_stubs() -> Iterator[None]:
    """Gradio writes a type stub beside every file that defines a component; it is not to write into this package."""
    before = component_meta.create_or_modify_pyi
    component_meta.create_or_modify_pyi = lambda *_: None
    try:
        yield
    finally:
        component_meta.create_or_modify_pyi = before


with _without_stubs():
    # Gradio would open a picture with any of PIL's decoders before a limit of ours is looked at. Classes, since it
    # makes a component anew from its class for every page that changes one.

    class _Picture(gr.Image):
        is_template = True  # gradio's own mark of a component that is drawn as the one it is made from

        def preprocess(self, payload: Any) -> str | None:
            return _path(payload)

    class _Clip(gr.Video):
        is_template = True

        def preprocess(self, payload: Any) -> str | None:
            return _path(payload)


def input_column(site: Site) -> Inputs:
    """Build it, with the examples and the checks of uploads."""
    first = next(iter(site.examples), None)
    start = first if first is not None and first.kind == PICTURE and first.model in site.shelf.names else None
    with gr.Column(scale=4, min_width=300, elem_id="tp-inputs") as column:
        kind = gr.Radio(
            [("picture or page", PICTURE), ("clip", CLIP)], value=PICTURE, show_label=False, container=False,
            elem_id="tp-kind",
        )  # fmt: skip
        picture = _Picture(
            str(start.file) if start else None, label="picture or page", type="filepath", image_mode=None,
            sources=["upload", "webcam", "clipboard"], height=300, buttons=["fullscreen"], elem_id="tp-picture",
            placeholder="Drop a picture here, click to upload, or paste one",
            webcam_options=gr.WebcamOptions(mirror=False),
        )  # fmt: skip
        clip = _Clip(
            label="clip", sources=["upload", "webcam"], height=300, visible=False, elem_id="tp-clip",
            webcam_options=gr.WebcamOptions(mirror=False),
        )  # fmt: skip
        examples = None
        if site.examples:
            examples = gr.Dataset(
                label="examples", components=[gr.Image(visible=False, render=False)], type="index",
                samples=[[str(e.still)] for e in site.examples], samples_per_page=20, layout="gallery",
                sample_labels=None, elem_id="tp-examples",
            )  # fmt: skip
        question = gr.Textbox(
            start.question if start else "", label="question", placeholder=QUESTION, lines=2, max_lines=6,
            submit_btn=False, elem_id="tp-question",
        )  # fmt: skip
        model = gr.Dropdown(
            site.shelf.names, value=site.shelf.names[0], label="model", filterable=site.shelf.open_to_all,
            allow_custom_value=site.shelf.open_to_all, elem_id="tp-model",
            info="or any Hugging Face id (owner/name)" if site.shelf.open_to_all else None,
        )  # fmt: skip
        with gr.Accordion("more", open=False):
            longest = gr.Slider(1, 256, 88, step=1, label="longest answer, in tokens")
            frames = gr.Slider(
                1, site.limits.frames, min(16, site.limits.frames), step=1, label="frames looked at of a clip"
            )
    out = Inputs(column, model, kind, picture, clip, frames, question, longest)
    _connect(site, out, examples)
    return out


def _connect(site: Site, inputs: Inputs, examples: Any) -> None:
    blind_to_clips = set(zoo.list_models()) - {WATCHES}

    def switch(kind: str, model: str) -> tuple[Any, Any, Any]:
        """Show what is asked about; the embedded model that reads no clips steps aside."""
        chosen = model
        if kind == CLIP and model in blind_to_clips and WATCHES in site.shelf.names:
            chosen = WATCHES
            gr.Info(f"{model} watches no clips; {chosen} does")
        return gr.Image(visible=kind == PICTURE), gr.Video(visible=kind == CLIP), chosen

    def check_picture(path: str | None) -> Any:
        """Say what is wrong with an upload at once, and put it away."""
        if path is not None:
            try:
                take_picture(path, site.limits)
            except TokenPruneError as error:
                gr.Warning(failure(error)[1].message, title="This picture cannot be used")
                return None
        return gr.skip()

    def check_clip(path: str | None) -> Any:
        if path is not None:
            try:
                take_clip(path, 1, site.limits)
            except TokenPruneError as error:
                gr.Warning(failure(error)[1].message, title="This clip cannot be used")
                return None
        return gr.skip()

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    inputs.kind.input(
        switch, [inputs.kind, inputs.model], [inputs.picture, inputs.clip, inputs.model], **quiet
    )
    inputs.picture.upload(check_picture, inputs.picture, inputs.picture, **quiet)
    inputs.clip.upload(check_clip, inputs.clip, inputs.clip, **quiet)
    if examples is None:
        return

    def pick(place: int) -> dict[Any, Any]:
        example = site.examples[place]
        film = example.kind == CLIP
        out: dict[Any, Any] = {
            inputs.kind: example.kind,
            inputs.picture: gr.Image(visible=False) if film else gr.Image(str(example.file), visible=True),
            inputs.clip: gr.Video(str(example.file), visible=True) if film else gr.Video(visible=False),
            inputs.question: example.question,
        }
        if example.model in site.shelf.names:
            out[inputs.model] = example.model
        return out

    touched = [inputs.kind, inputs.picture, inputs.clip, inputs.question, inputs.model]
    examples.click(pick, examples, touched, **quiet)
