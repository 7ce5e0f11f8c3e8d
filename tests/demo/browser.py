"""The real app on a port of its own, and a headless Chromium to use it with."""

from __future__ import annotations

import shutil

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)

PATIENCE = 120_000
"""Milliseconds that a page may take on a machine with better things to do."""


def missing() -> str | None:
    """Why no browser test can run here."""
    for package in ("gradio", "playwright"):
        try:
            __import__(package)
        except ImportError:
            return f"{package} is not installed"
    return None if CHROMIUM else "no Chromium is installed"


def need_browser() -> None:
    why = missing()
    if why:
        pytest.skip(why)


class Watched:
    """A page, with every address it asked for and every error it met."""

    def __init__(self, page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def text(self, where: str) -> str:
        return self.page.locator(where).inner_text().strip()

    def settled(self, line: str = "#tp-line", *, timeout: int = PATIENCE) -> str:
        """The status line once nothing is under way any more."""
        busy = f"{line} .tp-status.busy"
        self.page.locator(f"{line} .tp-status:not(.busy)").wait_for(timeout=timeout)
        assert self.page.locator(busy).count() == 0
        return self.text(line)

    def choose(self, where: str, value: str) -> None:
        """An entry of a dropdown, by typing it."""
        box = self.page.locator(f"{where} input").first
        box.click()
        box.fill(value)
        self.page.get_by_role("option", name=value, exact=True).first.click()

    def compare(self) -> str:
        """Click, wait until it begins, wait until it is over."""
        self.page.locator("#tp-go").click()
        self.page.locator("#tp-line .tp-status.busy").wait_for()
        return self.settled()
