"""`tokenprune demo`: the comparison app in a browser."""

from __future__ import annotations

import contextlib
from pathlib import Path

import typer

from .app import app, console

RUNS = Path("out/eval")


@app.command()
def demo(
    model: list[str] = typer.Option(
        [],
        "--model",
        help="Embedded model, local folder or Hugging Face id; may be repeated.",
        show_default="the embedded ones",
    ),
    allow_models: bool = typer.Option(
        False, "--allow-models", help="Let visitors name any Hugging Face id to be loaded."
    ),
    runs: Path = typer.Option(RUNS, "--runs", help="Folder whose runs the Results tab may read."),
    images: Path | None = typer.Option(
        None, "--images", help="Folder of the pictures that those runs were asked about."
    ),
    device: str = typer.Option("cpu", "--device", help="cpu, cuda, cuda:1, ..."),
    dtype: str = typer.Option("auto", "--dtype", help="auto, float32, bfloat16 or float16."),
    host: str = typer.Option("127.0.0.1", "--host", help="0.0.0.0 lets other machines in."),
    port: int | None = typer.Option(None, "--port", help="Default: the first free one from 7860 on."),
    share: bool = typer.Option(False, "--share", help="Ask Gradio for a public link; needs the network."),
    threads: int = typer.Option(1, "--threads", min=1, help="Torch threads; times on shared cores need 1."),
    max_upload: float = typer.Option(50, "--max-upload", min=0.1, help="Largest upload, in MiB."),
    max_seconds: float = typer.Option(300, "--max-seconds", min=1, help="Longest clip that is taken."),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code that comes with the models named by --model."
    ),
) -> None:
    """Compare methods on your own pictures, pages and clips, in a browser.

    Starts on the embedded models, without network. Nothing but uploads and the folders named here can be read.
    """
    from ..demo import Limits, Loading, Options, served
    from .progress import hush, progress

    hush()
    options = Options(
        models=model,
        allow_models=allow_models,
        loading=Loading(device, dtype, trust_remote_code),
        runs=runs,
        images=images,
        limits=Limits(mib=max_upload, seconds=max_seconds),
        threads=threads,
        host=host,
        port=port,
        share=share,
    )
    with contextlib.ExitStack() as stack:
        with progress("starting") as tick:
            tick(0, 1, "the app")
            server = stack.enter_context(served(options))
        screen = console()
        screen.print(f"open [bold]{server.url}[/]   (Ctrl+C ends it)", soft_wrap=True)
        if server.public_url:
            screen.print(f"public: {server.public_url}", soft_wrap=True)
        server.wait()
