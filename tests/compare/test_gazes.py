"""The moving gaze that `compare` draws is the one of that very run, and its words are those of the step."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.tiny.processors import save_pretrained
from tests.vlm_folder import save_vlm
from tokenprune.cli import app
from tokenprune.compare import Setting, check_settings, compare, load_chat, make_examples, write_figures
from tokenprune.compare.gazes import _story
from tokenprune.viz import GazePage

PINK = (230, 120, 170)
STEPS = 7


def talking(folder):
    """The model does not stop before the limit, so that there are steps to draw."""
    chat = load_chat(str(folder))
    chat.model.generation_config.min_new_tokens = STEPS + 1
    return chat


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl"])
def run(request, tmp_path_factory):
    """(chat, comparison, calls of single tokens in the order of the run, files)."""
    home = tmp_path_factory.mktemp(request.param)
    folder = home / "model"
    if request.param == "llava":
        save_vlm(folder, grid=8)  # 64 tokens, of which 32 are read
        size = (64, 64)
    else:
        save_pretrained("qwen2_5_vl", folder)
        size = (64, 40)  # 8 x 5 tokens
    chat = talking(folder)
    Image.new("RGB", size, PINK).save(home / "page.png")
    examples, _ = make_examples([str(home / "page.png")], ["what is in the image?"])
    fed = []
    hook = chat.model.get_input_embeddings().register_forward_hook(
        lambda module, args, out: fed.append(args[0].flatten().tolist())
    )
    found = compare(chat, examples, [Setting("fixation", 0.5)], max_new_tokens=STEPS + 1, repeats=0)
    hook.remove()
    return chat, found, fed, write_figures(found, home), home


def test_every_choice_is_drawn_and_nothing_else(run):
    _, found, _, written, home = run
    answer = found.answer(0, "fixation", 0.5)
    assert [path.name for path in written] == ["sheet.png", "fixation.png", "fixation.gif"]
    fixation, (image,) = answer.report.fixation, answer.report.images
    story = _story(found, 0, answer)
    layout = GazePage(story.views, story.looks, method="fixation", keep=story.keep, question=story.question)
    rows, cols = image.grid[1:]
    assert set(layout.boxes) == set(fixation.focal) and fixation.steps == STEPS
    seen = set()
    with Image.open(home / "fixation.gif") as film:
        assert film.n_frames == fixation.steps
        for step, layer, (chosen,) in fixation.choices:
            assert len(chosen) == 32 < image.before
            film.seek(step)
            frame = film.convert("RGB")
            left, top, right, bottom = layout.boxes[layer]
            lit = set()
            for token, (_, _, y, x) in enumerate(image.coords.tolist()):
                at = (
                    left + (right - left) * (2 * x + 1) // (2 * cols),
                    top + (bottom - top) * (2 * y + 1) // (2 * rows),
                )
                if sum(abs(a - b) for a, b in zip(frame.getpixel(at), PINK, strict=True)) < 40:
                    lit.add(token)
            assert lit == set(chosen), (step, layer)
            seen.add(tuple(chosen))
    assert len(seen) > 1, "a gaze that never moves would hide an animation of one step"


def test_a_step_shows_the_token_it_read_and_the_one_it_wrote(run):
    chat, found, fed, _, _ = run
    answer = found.answer(0, "fixation", 0.5)
    steps = [ids[0] for ids in fed[-STEPS:]]  # the last run is that of the method
    assert all(len(ids) == 1 for ids in fed[-STEPS:]) and len(fed[-STEPS - 1]) > 1
    assert steps == answer.tokens[:-1] and len(answer.tokens) == STEPS + 1
    looks = _story(found, 0, answer).looks
    assert [look.step for look in looks] == list(range(STEPS))
    for look in looks:
        read, wrote = (chat.text([answer.tokens[: look.step + n]])[0] for n in (1, 2))
        assert (look.before, look.after, look.ends) == (read, wrote, False)
    assert looks[-1].after == answer.text


def test_the_listing_holds_every_choice(run):
    _, found, _, _, _ = run
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    answer = next(a for a in data["answers"] if a["method"] == "fixation")
    fixation = found.answer(0, "fixation", 0.5).report.fixation
    told = answer["report"]["fixation"]
    assert told["choices"] == [[step, layer, rows[0]] for step, layer, rows in fixation.choices]
    assert told["focal"] == fixation.focal and told["steps"] == STEPS
    assert len(answer["tokens"]) == STEPS + 1 and "written" not in answer
    row = next(r for r in data["summary"] if r["method"] == "fixation")
    assert row["read"] == pytest.approx(fixation.read_share)
    assert 0 < row["read"] < 1 or len(fixation.focal) == len(answer["report"]["physical"])


def test_an_answer_that_ends_shows_its_end(tmp_path):
    chat = load_chat(str(save_vlm(tmp_path / "model", grid=8)))
    Image.new("RGB", (64, 64), PINK).save(tmp_path / "page.png")
    examples, _ = make_examples([str(tmp_path / "page.png")], ["is the circle red ?"])

    def answer_until(stop):
        chat.model.generation_config.eos_token_id = stop
        found = compare(chat, examples, check_settings(["fixation"], [0.5]), max_new_tokens=6, repeats=0)
        return found, found.answer(0, "fixation", 0.5)

    _, free = answer_until(None)
    stop = next((t for t in free.tokens[1:] if t != free.tokens[0]), None)
    assert stop is not None
    found, answer = answer_until(stop)
    looks = _story(found, 0, answer).looks
    assert answer.tokens == free.tokens[: free.tokens.index(stop)]
    assert len(looks) == len(answer.tokens) and [look.ends for look in looks] == [False] * (
        len(looks) - 1
    ) + [True]


def test_without_a_decode_step_there_is_nothing_to_draw(tmp_path):
    chat = load_chat(str(save_vlm(tmp_path / "model")))
    Image.new("RGB", (64, 64), PINK).save(tmp_path / "page.png")
    examples, _ = make_examples([str(tmp_path / "page.png")], ["is the circle red ?"])
    settings = check_settings(["uniform", "fixation"], [0.5])
    found = compare(chat, examples, settings, max_new_tokens=1, repeats=0)
    assert [path.name for path in write_figures(found, tmp_path)] == ["sheet.png", "uniform.png"]


def test_the_command_lists_strip_and_animations(tmp_path):
    folder = save_vlm(tmp_path / "model")
    for name in "ab":
        Image.effect_noise((40, 40), 80).convert("RGB").save(tmp_path / f"{name}.png")
    args = ["compare", "--model", folder, "--image", tmp_path / "a.png", "--image", tmp_path / "b.png"]
    args += ["--methods", "fixation", "--keep", "0.5,0.25", "--repeats", 0, "--max-new-tokens", 4]
    result = CliRunner().invoke(app, [str(a) for a in [*args, "--out", tmp_path / "o"]])
    assert result.exit_code == 0, result.output
    written = {path.name for path in (tmp_path / "o").iterdir()}
    assert written == {"sheet.png", "fixation.png", "fixation-1.gif", "fixation-2.gif", "compare.json"}
    assert all(f"wrote {tmp_path / 'o' / name}" in result.stdout for name in written)
    assert "a step reads" in result.stdout
