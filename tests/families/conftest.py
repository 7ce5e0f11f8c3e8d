"""Write what these tests found to a JSON, from which the README's support table is made: `--support FILE`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

_OUTCOMES: dict[tuple[str, str], bool] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--support", default=None, help="write family x behaviour outcomes of this run to a JSON file"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "behaviour(name): the cell of the support table this test fills")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    facts = dict(report.user_properties)
    if report.when != "call" or "behaviour" not in facts:
        return
    for name in {"behaviour", "video"} & set(facts):
        key = (facts["family"], facts[name])
        _OUTCOMES[key] = _OUTCOMES.get(key, True) and report.passed


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--support")
    if not target:
        return
    import torch
    import transformers

    table: dict[str, dict[str, bool]] = {}
    for (family, behaviour), passed in sorted(_OUTCOMES.items()):
        table.setdefault(family, {})[behaviour] = passed
    body = {
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "families": table,
    }
    Path(target).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
