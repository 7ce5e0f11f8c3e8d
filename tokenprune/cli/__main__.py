"""`python -m tokenprune.cli`."""

from . import app

app(prog_name="tokenprune")
