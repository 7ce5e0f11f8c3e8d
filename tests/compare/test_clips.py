"""`compare` on clips: counts of steps are those of the selection, a cut shows, who cannot watch says so."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tokenprune.chat as chat_module
from tests.tiny.processors import save_pretrained
from tests.vlm_folder import save_vlm
from tokenprune import patch_model
from tokenprune.chat import default_model, load_chat
from tokenprune.cli import app
from tokenprune.compare import Example, Film, check_settings, compare, make_clip_examples, write_figures
from tokenprune.errors import InputError, UnsupportedModelError
from tokenprune.media import Clip

CUT, FRAMES = 8, 12


def frames(side=(40, 64)):
    """Two still shots with a cut between them: all that changes changes there."""
    shots = np.random.default_rng(0).integers(0, 255, (2, *side, 3), dtype=np.uint8)
    return np.concatenate([np.repeat(shots[:1], CUT, 0), np.repeat(shots[1:], FRAMES - CUT, 0)])


@pytest.fixture(scope="module")
def watcher(tmp_path_factory):
    return save_pretrained("qwen2_5_vl", tmp_path_factory.mktemp("models") / "tiny-watcher")


@pytest.fixture(scope="module")
def gif(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "cut.gif"
    first, *rest = [Image.fromarray(f) for f in frames()]
    for place, still in enumerate([first, *rest]):
        still.putpixel((0, 0), (place % 2 * 255,) * 3)  # PIL joins frames that are equal
    first.save(path, save_all=True, append_images=rest, duration=100)
    return path


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_counts_of_steps_show_the_cut(watcher, tmp_path):
    chat = load_chat(str(watcher))
    clip = Clip.of_frames(frames(), fps=4.0, name="cut.mp4")
    examples = [Example(Film("cut.mp4", clip), "what happens in the video?")]
    settings = check_settings(["uniform", "random", "pool", "evs"], [0.3, 0.25])
    found = compare(chat, examples, settings, max_new_tokens=2, repeats=0)
    assert [a.error for a in found.answers] == [None] * 10 and found.video
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (
        data["examples"][0]["frames"] == list(range(FRAMES))
        and data["examples"][0]["frames_in_clip"] == FRAMES
    )
    assert data["protocol"]["blind"].endswith("without the clip")

    inputs = chat.inputs(clip, "what happens in the video?")
    for answer in data["answers"][2:]:
        (image,) = answer["report"]["images"]
        t, h, w = image["grid"]
        assert t == FRAMES // 2 and sum(image["per_step"]) == image["after"] == len(image["kept"])
        with patch_model(chat.model, answer["method"], chat.processor, keep=answer["keep"]) as handle:
            chat.generate(inputs, 1)
            kept = handle.report.images[0].kept
        assert image["per_step"] == [sum(token // (h * w) == step for token in kept) for step in range(t)]
        if answer["method"] == "evs":
            first, *later = image["per_step"]
            cut = CUT // 2
            assert first == h * w and np.argmax(later) == cut - 1
            # Nothing moves but at the cut, so whatever is left after the first frame goes there.
            assert later[cut - 1] == min(h * w, image["after"] - h * w)
        if answer["method"] == "uniform":
            assert max(image["per_step"]) - min(image["per_step"]) <= 1
    written = write_figures(found, tmp_path)
    assert [p.name for p in written] == [f"{n}.png" for n in ("sheet", "uniform", "random", "pool", "evs")]
    with Image.open(written[0]) as sheet, Image.open(written[4]) as own:
        assert sheet.width == own.width > 1000 and min(sheet.height, own.height) > 600


def test_the_command_on_a_gif(watcher, gif, tmp_path):
    result = run(
        *("compare", "--model", watcher, "--video", gif, "--frames", 8, "--question", "what happens?"),
        *("--methods", "uniform,evs,fixation", "--keep", "0.5", "--repeats", 1, "--max-new-tokens", 3),
        *("--out", tmp_path),
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["examples"][0]["picture"] == "cut.gif" and len(found["examples"][0]["frames"]) == 8
    per_step = {a["method"]: a["report"]["images"][0]["per_step"] for a in found["answers"] if "report" in a}
    assert all(len(counts) == 4 for counts in per_step.values())
    assert per_step["fixation"] == [40] * 4  # it drops nothing
    assert "kept of each of 4 steps in time" in result.stdout
    assert " ".join(f"{count:2d}" for count in per_step["evs"]) in result.stdout
    assert {"sheet.png", "uniform.png", "evs.png", "fixation.png", "fixation.gif"} < {
        p.name for p in tmp_path.iterdir()
    }
    assert str(gif.parent) not in (tmp_path / "compare.json").read_text()
    assert found["summary"][2]["prefill"]["median"] > 0


def test_a_folder_of_frames_is_a_clip_and_one_of_clips_is_several(gif, tmp_path):
    stills, films = tmp_path / "stills", tmp_path / "films"
    stills.mkdir()
    films.mkdir()
    for place, still in enumerate(frames()[::4]):
        Image.fromarray(still).save(stills / f"{place}.png")
    for name in ("b.gif", "a.gif"):
        (films / name).write_bytes(gif.read_bytes())
    (films / "c.mp4").write_bytes(b"broken")
    examples, skipped = make_clip_examples([str(stills), str(films)], ["why?", "where?"], 2)
    assert [e.picture.name for e in examples] == ["stills"] * 2 + ["a.gif"] * 2 + ["b.gif"] * 2
    assert all(len(e.picture.load().frames) == 2 for e in examples)
    assert len(skipped) == 1 and skipped[0].startswith("c.mp4: ") and str(tmp_path) not in skipped[0]
    (stills / "1.png").write_bytes(b"broken")
    with pytest.raises(InputError, match="1.png"):
        make_clip_examples([str(stills)], [], 3)
    assert make_clip_examples([str(gif)], [], 99)[0][0].question == "Describe this video."


def test_without_a_model_the_embedded_one_that_watches_is_asked(gif, tmp_path, monkeypatch):
    assert default_model() == "tiny-llava"
    monkeypatch.setattr(chat_module.zoo, "list_models", lambda: ["tiny-llava", "tiny-qwen"])
    assert default_model(video=True) == "tiny-qwen"
    monkeypatch.setattr(chat_module.zoo, "list_models", lambda: ["tiny-llava"])
    result = run("compare", "--video", gif, "--out", tmp_path)
    assert result.exit_code == 2 and "--model" in result.stderr and "tiny-llava" in result.stderr


def test_a_model_that_reads_pictures_only_says_so(gif, tmp_path):
    folder = save_vlm(tmp_path / "model")
    result = run(
        "compare", "--model", folder, "--video", gif, "--methods", "uniform", "--out", tmp_path / "o"
    )
    assert result.exit_code == 2 and "watches no video" in result.stderr and "Traceback" not in result.output
    chat = load_chat(str(folder))
    assert not chat.watches
    with pytest.raises(UnsupportedModelError, match="LlavaProcessor"):
        chat.inputs(Clip.of_frames(frames(), fps=1.0), "why?")


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["--video", "{gif}", "--image", "{gif}"], "pictures or about clips"),
        (["--frames", "4"], "--video"),
        (["--video", "nowhere.mp4"], "nowhere.mp4: no such file"),
        (["--video", "{bad}"], "bad.mp4"),
        (["--video", "{gif}", "--frames", "0"], "--frames"),
    ],
)
def test_bad_input_is_refused_before_the_model_is_loaded(args, part, watcher, gif, tmp_path, monkeypatch):
    import tokenprune.compare as package

    monkeypatch.setattr(package, "load_chat", lambda *a, **k: pytest.fail("the model was loaded"))
    (tmp_path / "bad.mp4").write_bytes(b"broken")
    args = [a.format(gif=gif, bad=tmp_path / "bad.mp4") for a in args]
    result = run("compare", "--model", watcher, *args, "--out", tmp_path / "o")
    assert result.exit_code == 2 and part in result.stderr and "Traceback" not in result.output
