"""What the page shows is what the library does: the same answers as patching by hand, and a clean model afterwards."""

import io
from contextlib import redirect_stdout

import pytest
from PIL import Image

from tests.vlm_folder import save_vlm
from tokenprune import get_method, patch_model
from tokenprune.chat import load_chat
from tokenprune.demo.desk import Cancelled, Job
from tokenprune.demo.drawings import CLUSTERS, GAZE, KEPT, SCORES, STEPS, gaze, pair, sheet, views
from tokenprune.demo.live import Answered, Round, Said, Timed, ask_all, check_methods
from tokenprune.demo.snippet import lines_of
from tokenprune.demo.sweep import curve, line_of
from tokenprune.errors import InputError

QUESTION, STEPS_OF_IT = "what colour is the circle ?", 6


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("live")
    save_vlm(home / "toy", grid=8)
    Image.effect_noise((64, 48), 80).convert("RGB").save(home / "a.png")
    return home


@pytest.fixture(scope="module")
def chat(home):
    chat = load_chat(str(home / "toy"))
    chat.model.generation_config.min_new_tokens = STEPS_OF_IT
    return chat


@pytest.fixture(scope="module")
def picture(home):
    return Image.open(home / "a.png").convert("RGB")


METHODS = [
    get_method("uniform", keep=0.25), get_method("fastv", keep=0.01), get_method("visionzip", keep=0.5),
    get_method("fixation", keep=0.1, k_min=4),
]  # fmt: skip


@pytest.fixture(scope="module")
def told(chat, picture):
    news = []
    ask_all(chat, picture, QUESTION, METHODS, news.append, Job(), max_new_tokens=STEPS_OF_IT, repeats=1)
    return news


@pytest.fixture(scope="module")
def found(told):
    out = told[0]
    assert isinstance(out, Round)
    for news in told[1:]:
        out.take(news)
    return out


def test_answers_are_those_of_the_library(chat, picture, found):
    inputs = chat.inputs(picture, QUESTION)
    assert found.base.text == chat.answer(inputs, STEPS_OF_IT)
    for place in (1, 3, 4):
        with patch_model(chat.model, METHODS[place - 1], chat.processor):
            assert found.answers[place].text == chat.answer(inputs, STEPS_OF_IT)
    assert found.answers[1].report.before == 64 and found.answers[1].report.after == 16


def test_words_come_one_by_one(told):
    for place in (0, 1):
        texts = [n.text for n in told if isinstance(n, Said) and n.place == place]
        assert len(texts) == STEPS_OF_IT and texts[-1].startswith(texts[0])
    order = [n.place for n in told if isinstance(n, Answered)]
    assert order == [0, 1, 2, 3, 4]


def test_a_method_below_its_floor_says_so_and_the_others_go_on(found, told):
    assert "floor" in found.answers[2].error or "cannot go below" in found.answers[2].error
    assert sorted(found.speeds) == [1, 3, 4] == [n.place for n in told if isinstance(n, Timed)]
    assert all(speed.prefill.median > 0 for speed in found.speeds.values())


def test_a_cancelled_question_leaves_the_model_unpatched(chat, picture, found):
    job = Job()

    def put(item):
        job.check()
        if isinstance(item, Said) and item.place == 1:
            job.cancel()

    with pytest.raises(Cancelled):
        ask_all(chat, picture, QUESTION, METHODS, put, job, max_new_tokens=STEPS_OF_IT)
    inputs = chat.inputs(picture, QUESTION)
    assert chat.answer(inputs, STEPS_OF_IT) == found.base.text
    with patch_model(chat.model, "uniform", keep=0.5):  # nothing of the old patch is in the way
        pass


def test_the_views_an_answer_has(found, picture):
    medium = found.medium
    assert views(medium, found.base) == [] == views(medium, found.answers[2])
    assert views(medium, found.answers[1]) == [KEPT]
    assert views(medium, found.answers[3]) == [KEPT, CLUSTERS, SCORES]
    assert views(medium, found.answers[4]) == [GAZE, STEPS]
    drawn = {view: pair(medium, found.answers[3], view, found.box) for view in (KEPT, CLUSTERS, SCORES)}
    assert {a.size for a, _ in drawn.values()} == {b.size for _, b in drawn.values()} == {(640, 480)}
    assert len({b.tobytes() for _, b in drawn.values()}) == 3
    for view, kind in ((GAZE, "gif"), (STEPS, "webp")):
        assert f"data:image/{kind};base64," in gaze(medium, found.answers[4], view, found.box, QUESTION)


def test_a_sweep_is_a_line_a_budget(found):
    answers = [found.answers[1], found.answers[2], found.answers[4]]
    lines = [line_of(answer, found.base) for answer in answers]
    assert lines[0][:2] == ["25%", "25 %"] and lines[0][3] in ("yes", "no")
    assert lines[1][2] == found.answers[2].error
    pytest.importorskip("matplotlib")
    assert curve(answers, found.base) is not None and curve([found.answers[2]], found.base) is None
    assert min(sheet(found.medium, QUESTION, answers, found.box).size) > 300


def test_the_copied_lines_print_the_answers_of_the_page(chat, found, home, monkeypatch):
    code = lines_of(str(home / "toy"), "a.png", QUESTION, METHODS[:1], max_new_tokens=STEPS_OF_IT)
    monkeypatch.chdir(home)
    monkeypatch.setattr("tokenprune.chat.load_chat", lambda name: chat)  # which is told to go on writing
    said = io.StringIO()
    with redirect_stdout(said):
        exec(compile(code, "<lines>", "exec"), {})
    lines = [line.strip() for line in said.getvalue().splitlines()]
    assert lines[0] == f"unpruned: {found.base.text}".strip()
    assert lines[1] == f"uniform: {found.answers[1].text}".strip() and "64 -> 16" in lines[2]


def test_the_same_method_twice_is_nothing_to_compare():
    check_methods(METHODS)
    with pytest.raises(InputError, match="the same"):
        check_methods([METHODS[0], METHODS[0]])
