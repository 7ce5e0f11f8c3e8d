"""`tokenprune methods`: the registry as a table."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.table import Table

from ..errors import UnknownNameError, neighbours
from .app import app, console


def describe(name: str) -> dict[str, Any]:
    """One method of the registry as plain data."""
    from ..methods import method_class

    cls = method_class(name)
    default = cls()  # hyper-parameters may decide what is needed and whether counts are exact
    return {
        "name": name,
        "stage": cls.stage,
        "query_aware": cls.query_aware,
        "exact": default.exact,
        "needs": sorted(default.needs),
        "idea": cls.describe(),
    }


@app.command()
def methods(
    pattern: str = typer.Argument("*", help="A glob such as 'flash*'."),
    as_json: bool = typer.Option(False, "--json", help="Plain data instead of a table."),
) -> None:
    """List the methods that are registered, third parties' included."""
    from ..methods import list_methods

    names = list_methods(pattern)
    if not names:
        raise UnknownNameError(f"no method matches {pattern!r}; {neighbours(pattern, list_methods())}")
    rows = [describe(name) for name in names]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(
        title=f"{len(rows)} methods", title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    for head in ("method", "stage", "reads the question", "exact count", "needs", "idea"):
        table.add_column(head, overflow="fold")
    for row in rows:
        yes = {True: "yes", False: "-"}
        needs = ", ".join(row["needs"]) or "-"
        table.add_row(
            f"[bold]{row['name']}[/]",
            row["stage"],
            yes[row["query_aware"]],
            yes[row["exact"]],
            needs,
            row["idea"],
        )
    console().print(table)
