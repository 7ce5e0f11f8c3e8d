"""The application, and what all commands share: options before a command, errors, consoles."""

from __future__ import annotations

import sys
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from ..errors import TokenPruneError

MIN_WIDTH = 120
"""Columns of a table that is piped into a file, where there is no terminal to fit."""


def console(stderr: bool = False) -> Console:
    """A console made when it is used, so that tests and pipes see what is written."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else MIN_WIDTH, highlight=False)


def warn(message: str) -> None:
    console(stderr=True).print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)


class _Group(TyperGroup):
    """Turns what this library raises on purpose into one red line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TokenPruneError as error:
            console(stderr=True).print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=_Group,
    name="tokenprune",
    help="Fewer visual tokens for any Hugging Face vision-language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(value: bool) -> None:
    if value:
        from ..bench.machine import versions

        found = versions()
        console().print(
            f"tokenprune {found['tokenprune']} (torch {found['torch']}, transformers {found['transformers']})"
        )
        raise typer.Exit()


@app.callback()
def main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print versions and exit."
    ),
) -> None:
    """Fewer visual tokens for any Hugging Face vision-language model."""
