"""The command line: what it writes, and that bad input is one line and never a traceback."""

import json
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

import tokenprune
from tokenprune import patch_model
from tokenprune.cli import app
from tokenprune.compare import Setting, check_settings, parse_keeps, split_methods
from tokenprune.errors import (
    BudgetError,
    InputError,
    TokenPruneError,
    UnknownNameError,
    UnsupportedModelError,
)
from tokenprune.methods import get_method

from .refused import make_blip, make_florence, make_instructblip, make_instructblipvideo, make_mllama
from .vlm_folder import save_vlm

runner = CliRunner()


@pytest.fixture(scope="session")
def vlm(tmp_path_factory):
    return save_vlm(tmp_path_factory.mktemp("models") / "small-vlm")


def draw_pictures(folder):
    folder.mkdir()
    Image.effect_noise((40, 40), 80).convert("RGB").save(folder / "a.png")
    Image.linear_gradient("L").resize((64, 32)).save(folder / "b.jpg")
    return folder


@pytest.fixture
def pictures(tmp_path):
    return draw_pictures(tmp_path / "pictures")


def run(*args):
    return runner.invoke(app, [str(a) for a in args])


def failed(result, *parts):
    """One red line, exit code 2, no traceback."""
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output and "error: " in result.stderr
    for part in parts:
        assert part in result.stderr, result.stderr


@pytest.fixture(scope="module")
def compared(vlm, tmp_path_factory):
    home = tmp_path_factory.mktemp("compared")
    out = home / "out"
    result = run(
        *(
            "compare",
            "--model",
            vlm,
            "--image",
            draw_pictures(home / "pictures"),
            "--question",
            "what colour is the circle ?",
        ),
        *("--question", "is the circle red ?", "--keep", "0.5,4", "--max-new-tokens", 3),
        *("--methods", "uniform,pool,flashvlm", "--repeats", 1, "--out", out),
    )
    assert result.exit_code == 0, result.output
    return result, out


def test_compare_writes_table_pictures_and_json(compared):
    result, out = compared
    for word in ("none", "blind", "uniform", "pool", "flashvlm", "16 -> 8", "16 -> 4", "prefill", "KV MiB"):
        assert word in result.stdout
    written = {p.name for p in out.iterdir()}
    assert written == {"sheet.png", "uniform.png", "pool.png", "flashvlm.png", "compare.json"}
    for name in written - {"compare.json"}:
        with Image.open(out / name) as image:
            assert min(image.size) > 300


def test_compare_json_schema(compared):
    _, out = compared
    text = (out / "compare.json").read_text()
    found = json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    assert set(found) == {
        *("schema", "versions", "machine", "model", "protocol", "examples", "skipped", "summary", "answers")
    }
    assert found["schema"] == "tokenprune.compare/1"
    assert {"tokenprune", "torch", "transformers", "python"} <= set(found["versions"])
    assert found["versions"]["tokenprune"] == tokenprune.__version__
    assert {"cpu", "threads", "cores"} <= set(found["machine"]) and found["machine"]["threads"] == 1
    assert (
        found["model"]["name"] == "small-vlm" and found["model"]["class"] == "LlavaForConditionalGeneration"
    )
    assert found["protocol"]["blind"].startswith("text only")
    assert [e["picture"] for e in found["examples"]] == ["a.png", "a.png", "b.jpg", "b.jpg"]
    assert found["examples"][2]["read"] == [0.25, 0, 0.75, 1]  # twice as wide as high, cropped to a square
    assert str(out.parent) not in text  # no paths of this machine

    rows = found["summary"]
    assert [r["method"] for r in rows[:2]] == ["none", "blind"]
    assert [(r["method"], r["keep"]) for r in rows[2:]] == [
        (m, k) for m in ("uniform", "pool", "flashvlm") for k in (0.5, 4)
    ]
    assert rows[0]["before"] == rows[0]["after"] == 16 and rows[0]["prefill"]["seconds"] > 0
    for row in rows[2:]:
        assert row["after"] == (8 if row["keep"] == 0.5 else 4) and row["answers"] == 4
        assert 0 <= row["agreement"] <= 1 and row["accuracy"] is None
        assert 0 < row["kv_mib"] < rows[0]["kv_mib"]
        assert row["prefill"]["median"] > 0 and row["decode"]["pairs"] == 4  # two pictures, one quad each
    assert len(found["answers"]) == 4 * (2 + 6)
    for answer in found["answers"]:
        if answer["method"] not in ("none", "blind"):
            image = answer["report"]["images"][0]
            assert len(image["kept"]) == image["after"] and image["before"] == 16


def test_compare_leaves_the_model_as_it_was(vlm, pictures):
    from tokenprune.compare import compare, load_chat, make_examples

    chat = load_chat(str(vlm))
    examples, _ = make_examples([str(pictures / "a.png")], ["is the circle red ?"])
    found = compare(
        chat, examples, [Setting("uniform", 1.0), Setting("uniform", 1)], max_new_tokens=4, repeats=0
    )
    assert found.answer(0, "uniform", 1.0).agrees and not found.speeds
    inputs = chat.inputs(examples[0].picture.load(), examples[0].question)
    assert chat.answer(inputs, 4) == found.answer(0, "none").text
    assert found.summaries()[0].prefill is None


def test_a_single_question_shows_its_answers(vlm, pictures, tmp_path):
    result = run(
        *("compare", "--model", vlm, "--image", pictures / "a.png", "--keep", "25%", "--repeats", 0),
        *("--methods", "random,none,blind", "--max-new-tokens", 2, "--out", tmp_path / "o"),
    )
    assert result.exit_code == 0, result.output
    assert "Describe this picture." in result.stdout and "answer" in result.stdout
    assert "prefill" not in result.stdout


def test_no_chat_template(tmp_path, pictures):
    folder = save_vlm(tmp_path / "bare", template=None)
    result = run(
        *("compare", "--model", folder, "--image", pictures, "--methods", "uniform", "--keep", "0.5"),
        *("--repeats", 0, "--max-new-tokens", 2, "--out", tmp_path / "o"),
    )
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "o/compare.json").read_text())["model"]["chat_template"] is False


def test_bad_pictures_of_a_folder_are_left_out_and_named(vlm, pictures, tmp_path):
    (pictures / "c.png").write_bytes(b"broken")
    result = run(
        *("compare", "--model", vlm, "--image", pictures, "--methods", "uniform", "--keep", "0.5"),
        *("--repeats", 0, "--max-new-tokens", 2, "--out", tmp_path / "o"),
    )
    assert result.exit_code == 0 and "c.png" in result.stderr
    found = json.loads((tmp_path / "o/compare.json").read_text())
    assert len(found["skipped"]) == 1 and str(tmp_path) not in found["skipped"][0]


def test_a_method_that_fails_is_recorded_and_the_run_goes_on(vlm, pictures, tmp_path, monkeypatch):
    from tokenprune.compare import run as run_module

    real = run_module.patch_model

    def patch(model, method, *rest, **hyper):
        if method.name == "pool":
            raise TokenPruneError("pool has a bad day")
        return real(model, method, *rest, **hyper)

    monkeypatch.setattr(run_module, "patch_model", patch)
    base = ("compare", "--model", vlm, "--image", pictures, "--keep", "0.5", "--max-new-tokens", 2)
    result = run(*base, "--methods", "uniform,pool", "--repeats", 1, "--out", tmp_path / "o")
    assert result.exit_code == 0 and "pool has a bad day" in result.stdout
    rows = json.loads((tmp_path / "o/compare.json").read_text())["summary"]
    assert (
        rows[3]["failures"] == ["pool has a bad day"] and rows[3]["answers"] == 0 and rows[2]["answers"] == 2
    )
    failed(run(*base, "--methods", "pool", "--out", tmp_path / "o"), "pool has a bad day")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--methods", "flashvml"], ["no method named 'flashvml'", "flashvlm"]),
        (["--methods", ","], ["no method given"]),
        (["--keep", "0"], ["keep=0", "(0, 1]"]),
        (["--keep", "1.5"], ["keep=1.5", "(0, 1]"]),
        (["--keep", "nan"], ["keep=nan"]),
        (["--keep", "-3"], ["keep=-3"]),
        (["--keep", "0%"], ["keep=0%"]),
        (["--keep", "half"], ["keep=half"]),
        (["--keep", ""], ["no keep given"]),
        (["--dtype", "int8"], ["dtype 'int8'", "bfloat16"]),
        (["--device", "toaster"], ["device 'toaster'"]),
        (["--model", "./nowhere"], ["./nowhere", "no such folder"]),
        (["--model", "tiny-lava"], ["tiny-lava", "tiny-llava"]),
        (["--image", "nowhere.png"], ["nowhere.png", "no such file"]),
        (["--image", "{tmp}/bad.png"], ["bad.png", "not a picture"]),
        (["--image", "{tmp}/bomb.png"], ["bomb.png", "limit"]),
        (["--image", "{tmp}/empty"], ["empty", "no picture in this folder"]),
        (["--image", "{tmp}/clip.mp4"], ["clip.mp4", "is a video, not a picture"]),
        (["--model", "{tmp}/empty"], ["no config.json"]),
        (["--out", "{tmp}/bad.png/deeper"], ["cannot write"]),
    ],
)
def test_bad_input_is_refused_before_the_model_is_loaded(args, parts, tmp_path, monkeypatch):
    import tokenprune.compare as package

    from .media.test_pictures import png_header

    monkeypatch.setattr(package, "load_chat", lambda *a, **k: pytest.fail("the model was loaded"))
    (tmp_path / "bad.png").write_bytes(b"broken")
    (tmp_path / "bomb.png").write_bytes(png_header(30_000, 30_000))
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    args = [a.replace("{tmp}", str(tmp_path)) for a in args]
    image = tmp_path / "fine.png"
    Image.new("RGB", (8, 8)).save(image)
    base = [] if "--image" in args else ["--image", image]
    base += [] if "--out" in args else ["--out", tmp_path / "o"]
    failed(run("compare", *base, *args), *parts)


def test_folders_that_hold_no_vlm(vlm, pictures, tmp_path):
    def ask(model):
        return run("compare", "--model", model, "--image", pictures, "--out", tmp_path / "o")

    (tmp_path / "junk").mkdir()
    (tmp_path / "junk/config.json").write_text("{}")
    failed(ask(tmp_path / "junk"), "junk", "cannot be loaded")
    text_only = tmp_path / "text"
    shutil.copytree(vlm, text_only)
    (text_only / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 19}))
    failed(ask(text_only), "LlamaConfig", "not a model that answers from pictures")
    broken = tmp_path / "broken"
    shutil.copytree(vlm, broken)
    (broken / "model.safetensors").write_bytes(b"\xff" * 100)
    failed(ask(broken), "broken", "cannot be loaded")
    pickled = tmp_path / "pickled"
    shutil.copytree(vlm, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    failed(ask(pickled), "pickled", "cannot be loaded")


def test_keeps_and_settings():
    assert parse_keeps("0.5, 25%,64,64") == [0.5, 0.25, 64]
    with pytest.raises(BudgetError):
        parse_keeps("0.5,inf")
    settings = check_settings(["uniform", "none", "uniform", " pool "], [0.5])
    assert settings == [Setting("uniform", 0.5), Setting("pool", 0.5)]
    assert [Setting("x", k).label for k in (0.111, 1, 64)] == ["11.1%", "1 token", "64 tokens"]
    with pytest.raises(InputError):
        check_settings(["none"], [0.5])


def test_a_method_may_be_written_with_hyper_parameters():
    text = "evs, pvc(budget=adaptive, window=8, absorb=false) ,pyramiddrop(layers=[1, 2])"
    items = split_methods(text)
    assert items == ["evs", "pvc(budget=adaptive, window=8, absorb=false)", "pyramiddrop(layers=[1, 2])"]
    settings = check_settings(items[:2], [0.5])
    assert settings[1].method == "progressive(budget=adaptive, window=8, absorb=false)"
    assert settings[1].reducer() == get_method("progressive", keep=0.5, budget="adaptive", window=8, absorb=False)
    for wrong, message in (
        ("uniform(keep=0.5)", "written as name"),
        ("uniform(order", "written as name"),
        ("uniform(stride)", "no hyper-parameter"),
        ("evs(nothing=1)", "no hyper-parameter"),
    ):
        with pytest.raises((InputError, UnknownNameError), match=message):
            check_settings([wrong], [0.5])


def test_methods_table_comes_from_the_registry():
    result = run("methods")
    assert result.exit_code == 0
    for name in tokenprune.list_methods():
        assert name in result.stdout
    rows = json.loads(run("methods", "flash*", "--json").stdout)
    assert [r["name"] for r in rows] == ["flashvlm"]
    assert rows[0]["query_aware"] is True and rows[0]["stage"] == "input" and rows[0]["idea"]
    failed(run("methods", "nothing*"), "no method matches")


def test_version_and_help():
    assert tokenprune.__version__ in run("--version").stdout
    for command in ("compare", "methods", "explain", "bench"):
        assert run(command, "--help").exit_code == 0


def test_explain(vlm):
    result = run("explain", vlm)
    assert result.exit_code == 0 and "Llava" in result.stdout
    assert isinstance(json.loads(run("explain", vlm, "--json").stdout), dict)
    failed(run("explain", "./nowhere"), "no such folder")


@pytest.mark.parametrize(
    "make", [make_mllama, make_florence, make_blip, make_instructblip, make_instructblipvideo]
)
def test_explain_refuses_what_patching_refuses_in_the_same_words(make, tmp_path):
    model = make()
    with pytest.raises(UnsupportedModelError) as refused:
        patch_model(model, "uniform")
    model.save_pretrained(tmp_path)
    failed(run("explain", tmp_path), str(refused.value))


@pytest.mark.slow
def test_bundled_pictures_and_model(tmp_path):
    result = run("compare", "--keep", "0.25", "--repeats", 0, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["model"]["name"] == "tiny-llava" and found["model"]["version"]
    assert found["summary"][0]["accuracy"] is not None and "correct" in result.stdout
