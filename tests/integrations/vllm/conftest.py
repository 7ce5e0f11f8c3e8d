"""Engines are started once, one after another, for all tests that read their answers."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def engines(tmp_path_factory) -> Path:
    """The folder with every engine's answers."""
    from . import engine, jobs

    folder = tmp_path_factory.mktemp("engines")
    engine.run(folder, jobs.all_jobs(folder / "checkpoints"))
    return folder
