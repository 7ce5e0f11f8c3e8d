"""`tokenprune explain MODEL`: what was found in a model and which methods it can serve."""

from __future__ import annotations

import json

import typer

from .app import app, console


@app.command()
def explain(
    model: str = typer.Argument("tiny-llava", help="Embedded model, local folder or Hugging Face id."),
    as_json: bool = typer.Option(False, "--json", help="Plain data instead of text."),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code that comes with the model."
    ),
) -> None:
    """Say what was found in a model: where its images lie, its layers, and what it can offer to methods."""
    from ..chat import load_chat
    from ..explain import explain as explain_model
    from .progress import hush

    hush()
    chat = load_chat(model, trust_remote_code=trust_remote_code)
    found = explain_model(chat.model, chat.processor)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2, default=str))
    else:
        console().print(str(found), markup=False)
