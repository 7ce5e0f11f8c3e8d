"""One server and one browser for all tests that drive the page."""

import contextlib

import pytest

from tests.demo.browser import CHROMIUM, PATIENCE, Watched, need_browser


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A run of the embedded model on a few of its scenes."""
    from tokenprune.eval import evaluate

    out = tmp_path_factory.mktemp("runs")
    evaluate(
        "tiny-llava", {"name": "scenes", "n": 18}, ["flashvlm"], [0.25], out=out / "few-scenes", limit=2,
        seeds=1, efficiency=0, batch=4,
    )  # fmt: skip
    return out


@pytest.fixture(scope="session")
def server(runs):
    need_browser()
    from tokenprune.demo import Limits, Options, served

    with served(Options(runs=runs, limits=Limits(mib=2, seconds=20))) as running:
        yield running


@pytest.fixture(scope="session")
def browser():
    need_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def visit(browser, server):
    """Opens the app in a window of its own: cookies, storage and session are nobody else's."""
    with contextlib.ExitStack() as stack:

        def open_page(**options):
            context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            watched = Watched(page)
            page.goto(server.url)
            page.locator("#tp-go").wait_for()
            return watched

        yield open_page


@pytest.fixture(scope="session")
def window(visit):
    """One page for all tests that need no second visitor: loading it costs more than what they do with it."""
    return visit()


@pytest.fixture
def seen(window, server):
    """That page, back at the start: first example, two methods, no times; it must meet no error of its own."""
    page = window.page
    page.get_by_role("tab", name="Compare").click()
    page.locator("#tp-question textarea").fill("")
    page.locator("#tp-examples button").first.click()
    page.wait_for_function("document.querySelector('#tp-question textarea').value !== ''")
    page.locator("#tp-picture img").wait_for()
    page.locator("#tp-count").get_by_text("2 methods", exact=True).click()
    page.locator("#tp-timed input").uncheck()
    yield window
    assert window.errors == []
    assert {url for url in window.requests if not url.startswith((server.url, "data:", "blob:"))} == set()
