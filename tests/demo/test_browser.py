"""The real app, the embedded models, a real browser: what a visitor does, and what visitors must not be able to do."""

import re

import pytest

from tests.demo.browser import PATIENCE, need_browser
from tests.media.test_pictures import png_header
from tokenprune.compare.examples import BUNDLED

LISTEN = """() => {
  const line = document.querySelector('#tp-line');
  window.lines = [];
  new MutationObserver(() => window.lines.push(line.innerText)).observe(
    line, { childList: true, subtree: true, characterData: true });
}"""
"""Keeps every state of the status line, however short it was there."""

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", autouse=True)
def where_it_can_run():
    need_browser()


def test_it_loads_without_the_network_and_answers(window, server):
    seen = window
    assert seen.page.title() == "tokenprune"
    assert seen.page.locator("#tp-picture img").count() == 1  # an example to begin with
    assert seen.page.locator("#tp-timed input").is_checked()
    said = seen.compare()
    assert re.fullmatch(r"\d of 2 methods say the same as the unpruned tiny-llava", said)
    assert seen.text("#tp-base .tp-answer") and "visual tokens" in seen.text("#tp-base")
    for place in (1, 2):
        card = seen.text(f"#tp-head-{place}")
        for word in ("49 of 196", "FLOPs", "KV cache", "prefill", "decode"):
            assert word in card
        seen.page.locator(f"#tp-pair-{place} img").nth(1).wait_for()
        assert seen.page.locator(f"#tp-pair-{place} img").count() == 2  # full and kept
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seen.page.locator("#tp-copy").click()
    seen.page.get_by_text("copied").wait_for()
    code = seen.page.evaluate("navigator.clipboard.readText()")
    compile(code, "<copied>", "exec")
    assert "scene-1.png" in code and "('flashvlm', {'keep': 0.25})" in code
    assert {url for url in seen.requests if not url.startswith((server.url, "data:", "blob:"))} == set()
    assert seen.errors == []


def test_sliders_and_forms_change_what_is_kept(seen):
    def kept(percent):
        box = seen.page.locator("#tp-keep-1 input[type=number]")
        box.fill(str(percent))
        box.press("Tab")
        seen.compare()
        return int(re.search(r"(\d+) of (\d+)", seen.text("#tp-head-1"))[1])

    assert kept(50) > kept(10) > 0
    # a form made from the dataclass of another method
    seen.choose("#tp-method-1", "uniform")
    seen.page.locator("#tp-hyper-1 button").first.click()
    seen.page.get_by_label("over").wait_for()
    assert seen.page.locator("#tp-hyper-1").get_by_label("eta").count() == 0
    # more methods beside each other, and other views of one
    seen.page.locator("#tp-count").get_by_text("4", exact=True).click()
    seen.page.locator("#tp-card-4").wait_for()
    seen.compare()
    assert "tokens" in seen.text("#tp-head-4")
    seen.page.locator("#tp-view-2").get_by_text("scores").click()
    seen.page.locator("#tp-pair-2 img").first.wait_for()
    # the boundary between the two pictures follows the arrow keys
    boundary = seen.page.locator("#tp-pair-1").get_by_role("slider")
    boundary.focus()
    before = boundary.bounding_box()["x"]
    for _ in range(3):
        boundary.press("ArrowRight")
    assert boundary.bounding_box()["x"] > before + 20
    assert seen.errors == []


def test_bad_input_is_a_message_and_the_next_question_is_answered(visit, tmp_path):
    seen = visit()
    seen.page.locator("#tp-picture").get_by_label("Remove Image").click()
    seen.page.locator("#tp-picture img").wait_for(state="detached")
    upload = seen.page.locator("#tp-picture input[type=file]").first
    upload.wait_for(state="attached")
    for name, data, words in (
        ("broken.png", b"not a picture at all", "not a picture"),
        ("bomb.png", png_header(30_000, 30_000), "limit"),
    ):
        (tmp_path / name).write_bytes(data)
        upload.set_input_files(str(tmp_path / name))
        toast = seen.page.locator(".toast-body", has_text=words)
        toast.first.wait_for()
        assert str(tmp_path) not in toast.first.inner_text()
        seen.page.locator(".toast-close").first.click()
        upload.wait_for(state="attached")
    seen.page.locator("#tp-go").click()
    seen.page.locator("#tp-line .tp-status.bad").wait_for()
    assert "no picture yet" in seen.text("#tp-line")
    upload.set_input_files(str(BUNDLED / "scene-2.png"))
    seen.page.locator("#tp-picture img").wait_for()
    seen.compare()
    assert seen.text("#tp-base .tp-answer")


def test_two_visitors_with_other_methods_never_see_each_others_answers(seen, visit):
    """Both ask at once, again and again; each page shows its own question's answer, its own methods, its own counts.

    Who comes second is told how many are before.
    """
    from playwright.sync_api import expect

    from tokenprune.chat import load_chat
    from tokenprune.media import load_image

    chat = load_chat("tiny-llava")
    asked = {
        "one": ("scene-2.png", "what colour is the star?", "random", 50),
        "two": ("scene-3.png", "what size is the yellow cross?", "pool", 12.5),
    }
    right = {
        who: chat.answer(chat.inputs(load_image(BUNDLED / file), question), 88)
        for who, (file, question, *_) in asked.items()
    }
    pages = {"one": seen, "two": visit()}
    for who, (file, question, method, percent) in asked.items():
        page = pages[who].page
        page.locator("#tp-timed input").uncheck()
        box = page.locator("#tp-question textarea")
        before = box.input_value()
        page.locator("#tp-examples button").nth(int(file[6]) - 1).click()
        expect(box).not_to_have_value(before, timeout=PATIENCE)  # the example's own question is there
        box.fill(question)
        pages[who].choose("#tp-method-1", method)
        box = page.locator("#tp-keep-1 input[type=number]")
        box.fill(str(percent))
        box.press("Tab")
        pages[who].page.evaluate(LISTEN)
    for _ in range(2):
        for page in pages.values():
            page.page.locator("#tp-go").click()
        for page in pages.values():
            page.page.locator("#tp-line .tp-status.busy").wait_for()
        for who, page in pages.items():
            page.settled()
            assert page.text("#tp-base .tp-answer") == right[who]
            share = asked[who][3] / 100
            kept, whole = map(int, re.search(r"(\d+) of (\d+)", page.text("#tp-head-1")).groups())
            assert kept == int(share * whole + 0.5)
    lines = [line for page in pages.values() for line in page.page.evaluate("window.lines")]
    assert any("1 before you in the line" in line for line in lines)
    assert all(page.errors == [] for page in pages.values())


def test_a_second_click_cancels_the_first(seen):
    seen.page.locator("#tp-count").get_by_text("4", exact=True).click()
    seen.page.locator("#tp-go").click()
    seen.page.locator("#tp-line .tp-status.busy").wait_for()
    seen.page.locator("#tp-question textarea").fill("what size is the yellow cross?")
    seen.page.locator("#tp-go").click()
    seen.settled()
    seen.page.get_by_text("the same in Python").click()
    seen.page.locator("#tp-code").wait_for()
    assert "what size is the yellow cross?" in seen.text("#tp-code")


def test_a_sweep(seen):
    seen.page.get_by_role("tab", name="Sweep").click()
    seen.page.locator("#tp-keeps textarea, #tp-keeps input").first.fill("50%, 25%, 5%")
    seen.page.locator("#tp-sweep").click()
    seen.page.locator("#tp-sweep-page img").wait_for()
    assert "unpruned answer" in seen.settled("#tp-sweep-line")
    table = seen.text("#tp-sweep-table")
    assert "50%" in table and "5%" in table
    seen.page.locator("#tp-keeps textarea, #tp-keeps input").first.fill("half")
    seen.page.locator("#tp-sweep").click()
    seen.page.locator("#tp-sweep-line .tp-status.bad").wait_for()
    assert "keep=half" in seen.text("#tp-sweep-line")


def test_a_clip_is_a_strip(seen):
    pytest.importorskip("av")
    seen.page.locator("#tp-examples button").last.click()
    seen.page.locator("#tp-clip video").wait_for(state="attached")
    assert "tiny-qwen" in seen.compare()
    film = seen.page.locator("#tp-film img")
    film.wait_for()
    assert film.evaluate("image => image.decode().then(() => image.naturalWidth)") > 600


def test_results_of_a_run(seen):
    seen.page.get_by_role("tab", name="Results").click()
    seen.choose("#tp-run", "few-scenes")
    seen.page.locator("#tp-curve img").wait_for()
    rows = seen.text("#tp-rows")
    for word in ("none", "blind", "flashvlm", "25 %"):
        assert word in rows
    show = seen.page.locator("#tp-show input")
    show.click()
    seen.page.get_by_role("option", name="all", exact=True).click()
    # gradio's table lies in a hidden one that it measures with, so its cells are named by their role
    seen.page.locator("#tp-samples [role=gridcell]").nth(2).click()
    seen.page.locator("#tp-detail .tp-facts").wait_for()
    assert "right answer" in seen.text("#tp-detail")
    drawn = {}
    for row in "ab":
        seen.page.locator(f"#tp-drawn-{row} img").nth(1).wait_for()
        drawn[row] = [image.get_attribute("src") for image in seen.page.locator(f"#tp-drawn-{row} img").all()]
    assert len(set(drawn["a"])) == 1 and len(set(drawn["b"])) == 2  # the unpruned row looked at all of it
    assert seen.errors == []


def test_only_uploads_and_chosen_folders_can_be_read(server, tmp_path, runs):
    import httpx

    (tmp_path / "secret.txt").write_text("secret")
    for path in (
        "/etc/passwd",
        str(tmp_path / "secret.txt"),
        str(runs / "few-scenes" / "run.json"),
        "../../etc/passwd",
    ):
        for route in ("file=", "gradio_api/file="):
            got = httpx.get(f"{server.url}{route}{path}")
            assert got.status_code in (403, 404), (path, got.status_code)
    big = httpx.post(f"{server.url}gradio_api/upload", files={"files": ("big.png", b"\0" * (3 * 2**20))})
    assert big.status_code == 413


def test_an_upload_is_never_somebody_elses_path(server, tmp_path):
    """Over the bare API: gradio's own client would upload the file that it is given the path of."""
    import httpx

    picture = BUNDLED / "scene-2.png"
    (tmp_path / "secret.png").write_bytes(picture.read_bytes())

    def asked(path):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        values = ["tiny-llava", "picture", file, None, 16, "?", 4, 2, False]
        values += ["uniform", 50, "pool", 50, "random", 50, "pool", 25]
        call = f"{server.url}gradio_api/call/compare"
        event = httpx.post(call, json={"data": values}, timeout=60).json()["event_id"]
        return httpx.get(f"{call}/{event}", timeout=PATIENCE / 1000).text

    for path in (str(tmp_path / "secret.png"), "/etc/passwd", "../../../etc/passwd"):
        answer = asked(path)
        assert "event: error" in answer and "say the same" not in answer and "not a picture" not in answer
    sent = httpx.post(f"{server.url}gradio_api/upload", files={"files": ("own.png", picture.read_bytes())})
    assert "say the same" in asked(sent.json()[0])
