"""`tokenprune compare`: the same questions from fewer and fewer visual tokens."""

from __future__ import annotations

from pathlib import Path

import typer

from ..errors import InputError
from .app import app, console, warn


@app.command()
def compare(
    model: str | None = typer.Option(
        None,
        "--model",
        help="Embedded model, local folder or Hugging Face id.",
        show_default="tiny-llava; with --video tiny-qwen",
    ),
    image: list[str] = typer.Option(
        [], "--image", help="A picture or a folder of pictures; may be repeated."
    ),
    video: list[str] = typer.Option(
        [], "--video", help="A clip, a folder of clips or of frames, instead of pictures; may be repeated."
    ),
    frames: int | None = typer.Option(
        None, "--frames", min=1, help="Frames looked at of every clip, spread evenly.", show_default="16"
    ),
    question: list[str] = typer.Option(
        [], "--question", help="Asked about every picture or clip; may be repeated."
    ),
    methods: str | None = typer.Option(
        None,
        "--methods",
        help="Names, see `tokenprune methods`; or name(hyper=value, ...).",
        show_default="random,uniform,pool,flashvlm; with --video evs in place of flashvlm",
    ),
    keep: str = typer.Option(
        "0.5,0.25,0.111,0.056", "--keep", help="Shares (0.25, 25%) or counts (64) to keep."
    ),
    device: str = typer.Option("cpu", "--device", help="cpu, cuda, cuda:1, ..."),
    dtype: str = typer.Option("auto", "--dtype", help="auto, float32, bfloat16 or float16."),
    out: Path = typer.Option(Path("out/compare"), "--out", help="Folder for pictures and compare.json."),
    max_new_tokens: int = typer.Option(32, "--max-new-tokens", min=1, help="Longest answer."),
    repeats: int = typer.Option(
        2, "--repeats", min=0, help="A B B A quads per setting when timing; 0: no timing."
    ),
    threads: int = typer.Option(1, "--threads", min=1, help="Torch threads; times on shared cores need 1."),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code that comes with the model."
    ),
) -> None:
    """Answer the same questions unpruned, blind, and pruned by every method at every budget.

    Prints a table, draws what each method kept and writes everything to compare.json. Without --image or --video the
    bundled pictures and questions are used. Of methods that act while the answer is written, such as fixation, it
    draws where they looked, as an animation and a film strip.
    """
    from ..compare import (
        CLIP_FRAMES,
        METHODS,
        VIDEO_METHODS,
        bundled_examples,
        check_model,
        check_settings,
        default_model,
        load_chat,
        make_clip_examples,
        make_examples,
        parse_keeps,
        split_methods,
        to_json,
        write_figures,
    )
    from ..compare import compare as run
    from .progress import hush, progress
    from .tables import print_comparison

    # All that can be wrong is looked at before the model, which may take minutes, is loaded.
    if video and image:
        raise InputError("--image and --video: a comparison is about pictures or about clips")
    if frames is not None and not video:
        raise InputError("--frames says how many frames of a clip are looked at; name one with --video")
    usual = VIDEO_METHODS if video else METHODS
    settings = check_settings(usual if methods is None else split_methods(methods), parse_keeps(keep))
    model = default_model(video=bool(video)) if model is None else model
    check_model(model, device, dtype)
    skipped: list[str] = []
    if video:
        examples, skipped = make_clip_examples(video, question, CLIP_FRAMES if frames is None else frames)
    elif image:
        examples, skipped = make_examples(image, question)
    else:
        examples = bundled_examples()
        if question:
            examples = _ask_all(examples, question)
    folder = _folder(out)
    for message in skipped:
        warn(f"{message}; left out")

    hush()
    with progress("loading") as tick:
        tick(0, 1, model)
        chat = load_chat(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    with progress("comparing") as tick:
        found = run(
            chat,
            examples,
            settings,
            max_new_tokens=max_new_tokens,
            repeats=repeats,
            threads=threads,
            tick=tick,
        )
    found.skipped = skipped
    with progress("drawing") as tick:
        written = write_figures(found, folder, tick=tick)
    listing = folder / "compare.json"
    try:
        listing.write_text(to_json(found.to_dict()), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{listing}: cannot be written ({error.strerror})") from error
    print_comparison(found, console())
    screen = console()
    screen.print()
    for path in [*written, listing]:
        screen.print(f"wrote {path}", style="dim", markup=False, soft_wrap=True)


def _ask_all(examples: list, questions: list[str]) -> list:
    """The user's questions about the bundled pictures; their right answers are not known."""
    from ..compare import Example

    pictures = {e.picture.name: e.picture for e in examples}
    return [Example(picture, q) for picture in pictures.values() for q in questions]


def _folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{out}: cannot write into this folder ({error.strerror})") from error
    return out
